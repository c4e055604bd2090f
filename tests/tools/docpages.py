"""The code blocks of a page of the documentation. CONTRIBUTING.md says how they are marked."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What needs no marker: drawings, and what programs print.
_FREE = ("", "text")
# Markers of blocks that make something happen, as opposed to those that are only looked at.
RUNNING = ("python", "go", "console", "bash", "serve")
_MARKER = re.compile(r" *<!-- test: (.*?)( -->)?")
_FENCE = re.compile(r" *(```+)([^`\s]*)[^`]*")


class PageFailed(AssertionError):
    """A block of a page is not, or does not, what the page says."""


@dataclass(frozen=True)
class Block:
    """A code block, and the marker before it.

    Attributes:
        line: the line of the page that its text begins with.
    """

    page: str
    line: int
    language: str
    marker: str
    text: str

    @property
    def how(self) -> str:
        """How it is tested: the first word of its marker."""
        return self.marker.split(" ", 1)[0]

    @property
    def argument(self) -> str:
        """The rest of its marker."""
        return self.marker.partition(" ")[2]

    def failed(self, why: str) -> PageFailed:
        """An error that names the place."""
        return PageFailed(f"{self.page}:{self.line}: {why}")


def pages() -> list[Path]:
    """All of the documentation."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found += (ROOT / "docs").rglob("*.md")
    found += (ROOT / "examples").rglob("*.md")
    return sorted(found)


def name_of(path: Path) -> str:
    """What a page is called: its path in the checkout."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def read(path: Path) -> list[Block]:
    """The marked blocks of a page, in their order.

    Raises:
        PageFailed: a block has no marker, or a marker no block.
    """
    found = [block for block in _all(path) if block.marker or block.language not in _FREE]
    for i, block in enumerate(found):
        if not block.marker:
            raise block.failed(f"no marker says how this {block.language} block is tested")
        if block.how == "file" and not any(b.how in RUNNING for b in found[i:]):
            raise block.failed(f"nothing is run with {block.argument} afterwards")
    return found


def _all(path: Path) -> Iterator[Block]:
    page = name_of(path)
    lines = path.read_text().splitlines()
    at = 0

    def until(closing: str) -> str:
        nonlocal at
        begin = at
        while at < len(lines) and lines[at].strip() != closing:
            at += 1
        if at == len(lines):
            raise PageFailed(f"{page}:{begin}: this block has no end")
        at += 1
        return textwrap.dedent("".join(f"{line}\n" for line in lines[begin : at - 1]))

    marker = ""
    while at < len(lines):
        line = lines[at]
        at += 1
        block = Block(page, at + 1, "", marker, "")
        if found := _MARKER.fullmatch(line):
            if marker:
                raise block.failed(f"no block follows the marker {marker!r}")
            if found[2]:
                marker = found[1]
            else:
                yield replace(block, marker=found[1], text=until("-->"))
        elif found := _FENCE.fullmatch(line):
            yield replace(block, language=found[2], text=until(found[1]))
            marker = ""
        elif marker:
            raise block.failed(f"no block follows the marker {marker!r}")
    if marker:
        raise PageFailed(f"{page}: no block follows the marker {marker!r}")


def programs(found: list[Block]) -> list[Block]:
    """The blocks, with each Python program that is in several of them as one, where it ends.

    Its lines have the numbers that they have in the page, for its tracebacks.
    """
    joined: list[Block] = []
    program = -1
    for block in found:
        if block.how == "python":
            text = ""
            if block.argument == "more":
                if program < 0:
                    raise block.failed("there is no program that this could go on with")
                text = joined.pop(program).text
            elif block.argument:
                raise block.failed(f"python {block.argument!r}")
            program = len(joined)
            text += "\n" * (block.line - 1 - text.count("\n")) + block.text
            block = replace(block, text=text)
        joined.append(block)
    return joined
