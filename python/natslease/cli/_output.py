"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

# How a column is shown: its heading, and the text of a value.
Column = tuple[str, Callable[[Any], str]]
# Wide enough that nothing is cut where the output is not a terminal.
_WIDTH = 400


class Output:
    """Where a command writes its result."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        terminal = sys.stdout.isatty()
        self.console = Console(width=None if terminal else _WIDTH, highlight=False)

    def table(
        self, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Column], *, none: str
    ) -> None:
        """Rows, as a list in JSON, or as a table; ``none`` is said where there are no rows."""
        if self.as_json:
            self.json(list(rows))
            return
        if not rows:
            click.echo(none)
            return
        with self.console.capture() as capture:
            self.console.print(make_table(rows, columns))
        for line in capture.get().splitlines():
            click.echo(line.rstrip())

    def record(self, fields: Mapping[str, Any], text: str) -> None:
        """One result: an object in JSON, or a sentence."""
        if self.as_json:
            self.json(fields)
        else:
            click.echo(text)

    def json(self, value: Any) -> None:
        """Any value, on a line of its own."""
        click.echo(json.dumps(value, ensure_ascii=False))


def make_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Column]) -> Table:
    """A table with a line for each row; numbers stand at the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, (heading, _) in columns.items():
        numeric = all(isinstance(row[name], (int, float)) for row in rows)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(show(row[name]) for name, (_, show) in columns.items()))
    return table
