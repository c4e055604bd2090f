"""Builds the documentation's site into build/site/html: the pages, and references from the sources.

Every link has to lead somewhere: what is neither a page nor a picture of the site is shown by the
repository.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build" / "site"
PAGES = SITE / "pages"
PYTHON = ROOT / "python"
REPOSITORY = "https://github.com/RolnickLab/natslease/blob/main/"
GO_PACKAGES = {"core": "reference/go/core.md", "core/fleet": "reference/go/fleet.md"}
KINDS = {
    "Tutorial": "tutorial",
    "How to": "howto",
    "Reference": "reference",
    "Background": "explanation",
}
# Markers of tests, and blocks that readers do not see.
_MARKER = re.compile(r"^ *<!-- .*?-->\n", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"^( *```.*?^ *```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def main() -> int:
    shutil.rmtree(SITE, ignore_errors=True)
    pages = _pages()
    for source, target in pages.items():
        _write(target, _convert(source, pages))
    for target, text in _references():
        _write(target, text)
    # The lines of programs are longer than the theme's columns.
    _write("wide.css", ".md-grid { max-width: 84rem; }\n")
    config = SITE / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT / 'docs' / 'site' / 'mkdocs.yml'}\n"
        f"docs_dir: {PAGES}\nsite_dir: {SITE / 'html'}\nnav:\n{''.join(_navigation())}"
        f"plugins:\n  mkdocstrings:\n    handlers:\n      python:\n        paths: [{PYTHON}]\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "-f", config], check=False
    ).returncode


def _pages() -> dict[Path, str]:
    """The files that are pages, and their places in the site."""
    found = {
        ROOT / "README.md": "index.md",
        ROOT / "CHANGELOG.md": "changelog.md",
        ROOT / "CONTRIBUTING.md": "contributing.md",
    }
    for page in sorted((ROOT / "docs").rglob("*.md")):
        found[page] = str(page.relative_to(ROOT / "docs"))
    return found


def _convert(source: Path, pages: dict[Path, str]) -> str:
    here = Path(pages[source]).parent

    def link(found: re.Match[str]) -> str:
        path, _, heading = found[2].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return found[0]
        there = (source.parent / path).resolve()
        if there in pages:
            target = os.path.relpath(pages[there], here) + (f"#{heading}" if heading else "")
        elif there.suffix == ".png":
            picture = str(there.relative_to(ROOT / "docs"))
            _write(picture, there.read_bytes())
            target = os.path.relpath(picture, here)
        else:
            target = REPOSITORY + str(there.relative_to(ROOT))
        return f"{found[1]}{target}{found[3]}"

    parts = _CODE.split(_MARKER.sub("", source.read_text()))
    # Every other part is code.
    return "".join(part if i % 2 else _LINK.sub(link, part) for i, part in enumerate(parts))


def _references() -> Iterator[tuple[str, str]]:
    for folder, target in GO_PACKAGES.items():
        command = [
            "go",
            "run",
            "./docs/site/godoc",
            f"github.com/RolnickLab/natslease/{folder}",
            folder,
        ]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        yield target, done.stdout
    for module in sorted(PYTHON.rglob("*.py")):
        parts = module.relative_to(PYTHON).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        names = _exported(module)
        if names and not any(part.startswith("_") for part in parts):
            name = ".".join(parts)
            entries = "".join(f"::: {name}.{n}\n\n" for n in names if n != "__version__")
            yield (
                f"reference/python/{name}.md",
                f"# {name}\n\n::: {name}\n    options:\n      members: false\n"
                f"      show_root_heading: false\n\n{entries}",
            )


def _exported(module: Path) -> list[str]:
    """The names in ``__all__``."""
    for statement in ast.parse(module.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(statement.value)
            return names
    return []


def _navigation() -> Iterator[str]:
    yield "  - natslease: index.md\n"
    for kind, folder in KINDS.items():
        yield f"  - {kind}:\n"
        for page in sorted((PAGES / folder).glob("*.md")):
            yield f"      - {page.relative_to(PAGES)}\n"
        for part in sorted(path for path in (PAGES / folder).iterdir() if path.is_dir()):
            yield f"      - {part.name.capitalize()}:\n"
            for page in sorted(part.glob("*.md"), key=lambda page: page.stem):
                yield f"          - {page.stem}: {page.relative_to(PAGES)}\n"
    yield "  - changelog.md\n  - contributing.md\n"


def _write(target: str, content: str | bytes) -> None:
    path = PAGES / target
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


if __name__ == "__main__":
    sys.exit(main())
