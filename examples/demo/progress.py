"""Bars on a terminal; elsewhere a line now and then."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

_FRAME = 0.1  # seconds between two pictures on a terminal
_LINE = 1.0  # and between two lines elsewhere
_LABEL = 12


class Board:
    """Rows that are drawn over each other on a terminal, one below the other elsewhere."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._tty = stream.isatty()
        unicode = (stream.encoding or "").lower().startswith("utf")
        self._full, self._empty = ("█", "░") if unicode else ("#", "-")
        self._rows: dict[str, str] = {}
        self._drawn = 0
        self._next = 0.0

    def bar(self, label: str, done: int, total: int, note: str = "") -> None:
        """Sets a row to a bar."""
        text = f"{done:>7,} of {total:,}"
        if self._tty:
            width = max(10, min(40, shutil.get_terminal_size().columns - _LABEL - 40))
            filled = width * done // max(total, 1)
            text = f"{self._full * filled}{self._empty * (width - filled)}{text}"
        self._rows[label] = f"{text}  {note}".rstrip()
        self._draw()

    def say(self, label: str, text: str) -> None:
        """Sets a row to a text, and shows it at once."""
        self._rows[label] = text
        self._draw(now=True)

    def finish(self) -> None:
        """Shows how things stand, for good."""
        self._draw(now=True)
        self._rows.clear()
        self._drawn = 0

    def _draw(self, *, now: bool = False) -> None:
        if not now and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (_FRAME if self._tty else _LINE)
        if self._tty:
            columns = shutil.get_terminal_size().columns
            lines = [
                f"{label:<{_LABEL}}{text}"[: columns - 1] for label, text in self._rows.items()
            ]
            up = f"\x1b[{self._drawn}A" if self._drawn else ""
            self._stream.write(up + "".join(f"\x1b[2K{line[: columns - 1]}\n" for line in lines))
            self._drawn = len(lines)
        else:
            self._stream.write(" | ".join(f"{k} {v.strip()}" for k, v in self._rows.items()) + "\n")
        self._stream.flush()
