"""What the management commands share."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

import natslease

from . import _settings
from ._clients import clients

# Numbers stand on the right.
Column = tuple[str, Callable[[Any], str]]


class QueueCommand(BaseCommand):
    """A command that asks the server of an alias something."""

    # The checks of the whole site are not needed for asking, and those of the settings are made
    # when the client is.
    requires_system_checks: Sequence[str] = ()  # type: ignore[assignment]
    repeats = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--alias", default=_settings.DEFAULT_ALIAS, help="of the settings (default: default)"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")
        if self.repeats:
            parser.add_argument(
                "--interval", type=positive, metavar="SECONDS", help="go on until Ctrl-C"
            )

    def handle(self, *args: Any, **options: Any) -> None:
        interval = options.get("interval")
        try:
            client = clients[options["alias"]]
            self.work(client, options)
            while interval:
                time.sleep(interval)
                if not options["json"]:
                    self.stdout.write(f"\n{time.strftime('%X')}")
                try:
                    self.work(client, options)
                except natslease.Unavailable as error:
                    self.stderr.write(str(error))  # it goes on when the outage is over
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        except natslease.Error as error:
            raise CommandError(error.explain()) from error
        except KeyboardInterrupt:
            if not interval:
                raise

    def work(self, client: natslease.Client, options: dict[str, Any]) -> None:
        """Does it, once."""
        raise NotImplementedError

    def show_json(self, value: Any) -> None:
        """One line, so that what is repeated can be read line by line."""
        self.stdout.write(json.dumps(value))

    def show_table(
        self, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Column], none: str
    ) -> None:
        """A table, or the text when there is no row."""
        cells = [[show(row[key]) for key, (_, show) in columns.items()] for row in rows]
        if not cells:
            self.stdout.write(none)
            return
        titles = [title for title, _ in columns.values()]
        widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
        right = [show is not str for _, show in columns.values()]
        for line in [titles, *cells]:
            parts = [
                cell.rjust(width) if on_right else cell.ljust(width)
                for cell, width, on_right in zip(line, widths, right, strict=True)
            ]
            self.stdout.write("  ".join(parts).rstrip())

    def confirm(self, question: str, options: Mapping[str, Any]) -> None:
        """Asks, unless ``--yes`` was given.

        Raises:
            CommandError: the answer is not yes.
        """
        if options["yes"]:
            return
        try:
            answer = input(f"{question} [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise CommandError("nothing was done (--yes skips the question)")


def positive(text: str) -> float:
    """Seconds from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise ArgumentTypeError(f"{text!r} is no number of seconds")
    return value
