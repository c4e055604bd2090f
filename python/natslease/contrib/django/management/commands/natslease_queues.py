"""``manage.py natslease_queues``"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

import natslease
from natslease.contrib.django._command import Column, QueueCommand
from natslease.show import age, number, queue_rows, size

_COLUMNS: dict[str, Column] = {
    "stream": ("QUEUE", str),
    "consumer": ("CONSUMER", str),
    "pending": ("PENDING", number),
    "leased": ("LEASED", number),
    "redelivered": ("REDELIVERED", number),
    "bytes": ("SIZE", size),
    "oldest_at": ("OLDEST", age),
}


class Command(QueueCommand):
    """Lists queues."""

    help = (
        "Lists the queues: streams with their consumers. PENDING tasks were not given out yet, "
        "LEASED ones are being worked on, REDELIVERED ones of these were given out before; OLDEST "
        "is the age of the oldest message in the stream."
    )
    repeats = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("pattern", nargs="?", default="*", help='of their names, as "job_*"')

    def work(self, client: natslease.Client, options: dict[str, Any]) -> None:
        rows = queue_rows(client, options["pattern"])
        if options["json"]:
            self.show_json({"at": time.time(), "queues": rows})
        else:
            self.show_table(rows, _COLUMNS, f"There is no queue {options['pattern']}.")
