"""``manage.py natslease_dead_letters``"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

import natslease
from natslease.contrib.django import _settings
from natslease.contrib.django._command import Column, QueueCommand
from natslease.show import age, letter_row, number

_COLUMNS: dict[str, Column] = {
    "id": ("TASK", str),
    "seq": ("SEQ", number),
    "attempts": ("ATTEMPTS", number),
    "died_at": ("DIED", age),
    "worker": ("WORKER", str),
    "reason": ("REASON", str),
}


class Command(QueueCommand):
    """Lists dead letters, requeues or discards them."""

    help = (
        "Lists tasks of a queue that have failed on their last attempt; --requeue makes tasks of "
        "them again, --discard forgets them."
    )
    repeats = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("stream", help="the queue's")
        parser.add_argument("--subject", help="of the queue (default: the stream's name)")
        parser.add_argument("--consumer", help="of the queue (default: the stream's name)")
        parser.add_argument(
            "--letters", help="the stream of the dead letters (default: DEAD_LETTERS of the alias)"
        )
        parser.add_argument("--limit", type=int, default=100, help="at most so many (default: 100)")
        action = parser.add_mutually_exclusive_group()
        action.add_argument("--requeue", action="store_true", help="make tasks of them again")
        action.add_argument("--discard", action="store_true", help="forget them")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def work(self, client: natslease.Client, options: dict[str, Any]) -> None:
        letters_stream = options["letters"] or _settings.options_of(options["alias"]).get(
            "DEAD_LETTERS"
        )
        if not letters_stream:
            raise CommandError(
                "which stream keeps the dead letters? Name it with --letters, or in the settings: "
                f"NATSLEASE[{options['alias']!r}]['DEAD_LETTERS']"
            )
        queue = client.queue(
            options["stream"],
            subject=options["subject"],
            consumer=options["consumer"],
            dead_letters=letters_stream,
        )
        letters = queue.dead_letters(options["limit"])
        if not (options["requeue"] or options["discard"]):
            self._show(letters, options)
            return
        if not letters:
            self._tell({"letters": 0}, options)
            return
        what = "Requeue" if options["requeue"] else "Discard"
        self.confirm(f"{what} {len(letters)} dead letters of {queue.stream}?", options)
        if options["requeue"]:
            report = queue.requeue(letters)
            self._tell({"requeued": len(report.accepted), "failed": len(report.failed)}, options)
        else:
            self._tell({"discarded": queue.discard(letters)}, options)

    def _show(self, letters: list[natslease.DeadLetter], options: dict[str, Any]) -> None:
        rows = [letter_row(letter) for letter in letters]
        if options["json"]:
            self.show_json(rows)
        else:
            self.show_table(rows, _COLUMNS, f"{options['stream']} has no dead letters.")

    def _tell(self, counts: dict[str, int], options: dict[str, Any]) -> None:
        if options["json"]:
            self.show_json(counts)
        else:
            self.stdout.write(", ".join(f"{count} {what}" for what, count in counts.items()))
