"""``manage.py natslease_sweep``"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

import natslease
from natslease.contrib.django import sweep
from natslease.contrib.django._command import Column, QueueCommand
from natslease.show import age, number, size

_COLUMNS: dict[str, Column] = {
    "stream": ("QUEUE", str),
    "messages": ("MESSAGES", number),
    "bytes": ("SIZE", size),
    "created": ("CREATED", age),
    "last_at": ("LAST MESSAGE", age),
}


class Command(QueueCommand):
    """Deletes orphan queues."""

    help = (
        "Deletes queues that nobody wants any more, after a question; --dry-run only lists them. "
        "Which these are is said by NATSLEASE[alias]['SWEEP']."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--dry-run", action="store_true", help="only list them")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def work(self, client: natslease.Client, options: dict[str, Any]) -> None:
        found = sweep(options["alias"], dry_run=True)
        rows = [
            {
                "stream": orphan.name,
                "messages": orphan.messages,
                "bytes": orphan.bytes,
                "created": orphan.created,
                "last_at": orphan.last_at,
            }
            for orphan in found.orphans
        ]
        if not options["json"]:
            self.show_table(rows, _COLUMNS, "There are no orphan queues.")
            if found.more:
                self.stdout.write("There are more: LIMIT is reached.")
        if options["dry_run"] or not rows:
            if options["json"]:
                self.show_json({"orphans": rows, "deleted": [], "failed": {}, "more": found.more})
            return
        self.confirm(f"Delete {len(rows)} queues with all their tasks?", options)
        done = sweep(options["alias"], dry_run=False)
        failed = {name: str(error) for name, error in done.failed.items()}
        if options["json"]:
            told = {"orphans": rows, "deleted": done.deleted, "failed": failed, "more": done.more}
            self.show_json(told)
        else:
            self.stdout.write(f"{len(done.deleted)} deleted, {len(failed)} failed")
        if failed:
            raise CommandError("; ".join(f"{name}: {text}" for name, text in failed.items()))
