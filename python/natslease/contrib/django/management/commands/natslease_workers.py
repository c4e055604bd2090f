"""``manage.py natslease_workers``"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

import natslease
from natslease import show
from natslease.contrib.django._command import QueueCommand
from natslease.fleet import Fleet


class Command(QueueCommand):
    """Lists workers, or tells who has a task."""

    help = (
        "Lists workers: whether they are there, and what they do. With --task: who has that task, "
        "since when, and what happened to it before."
    )
    repeats = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--queue", metavar="STREAM", help="only those that have tasks of it")
        parser.add_argument("--task", metavar="ID", help="of that queue")

    def work(self, client: natslease.Client, options: dict[str, Any]) -> None:
        fleet, stream = Fleet(client), options["queue"]
        if options["task"] is not None:
            if stream is None:
                raise CommandError("--task goes with --queue")
            history = fleet.task(stream, options["task"])
            if history is None:
                raise CommandError(f"nothing is known of the task {options['task']} of {stream}")
            if options["json"]:
                self.show_json(show.task_row(history))
            else:
                self.stdout.write(str(history))
            return
        rows = [show.worker_row(worker) for worker in fleet.workers()]
        if stream is not None:
            rows = [row for row in rows if row["holding"].get(stream)]
        if options["json"]:
            self.show_json(rows)
        else:
            self.show_table(rows, show.WORKER_COLUMNS, "There are no workers.")
