"""``manage.py natslease_settle``"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import natslease
from natslease.contrib.django import inbox
from natslease.contrib.django._command import QueueCommand


class Command(QueueCommand):
    """For sites without Celery's beat."""

    help = (
        "Acknowledges the tasks whose results are saved and that are not settled yet, and deletes "
        "rows of the inbox that were settled long ago."
    )
    repeats = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--limit", type=int, default=1000, help="at most so many at a time (default: 1000)"
        )
        parser.add_argument(
            "--keep-days", type=float, default=7.0, help="of settled rows (default: 7)"
        )

    def work(self, client: natslease.Client, options: dict[str, Any]) -> None:
        counts = inbox.settle_pending(options["limit"])
        counts["pruned"] = inbox.prune(options["keep_days"] * 86_400)
        if options["json"]:
            self.show_json(counts)
        else:
            self.stdout.write(", ".join(f"{count} {what}" for what, count in counts.items()))
