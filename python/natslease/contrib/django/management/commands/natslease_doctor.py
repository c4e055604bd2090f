"""``manage.py natslease_doctor``"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

import natslease
from natslease.contrib.django._command import QueueCommand
from natslease.doctor import examine


class Command(QueueCommand):
    """Says what is wrong."""

    help = (
        "Looks at the connection, the server, JetStream and its limits, permissions and how "
        "durable the streams are, and says what to do. Fails when something does not work."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("pattern", nargs="?", default="*", help='of the streams, as "job_*"')
        parser.add_argument("--queue", metavar="STREAM", help="whether this client may use it")
        parser.add_argument("--subject", help="of that queue (default: the stream's name)")
        parser.add_argument("--consumer", help="of that queue (default: the stream's name)")
        parser.add_argument(
            "--monitor", default="", metavar="URL", help="of the server's monitoring port"
        )
        parser.add_argument(
            "--trial", action="store_true", help="make a queue, use it, and delete it"
        )

    def work(self, client: natslease.Client, options: dict[str, Any]) -> None:
        queue = None
        if options["queue"]:
            queue = client.queue(
                options["queue"], subject=options["subject"], consumer=options["consumer"]
            )
        styles = {
            "ok": self.style.SUCCESS,
            "warning": self.style.WARNING,
            "failed": self.style.ERROR,
        }
        found = []
        for finding in examine(
            client,
            pattern=options["pattern"],
            queue=queue,
            monitor=options["monitor"],
            trial=options["trial"],
        ):
            found.append(finding)
            if not options["json"]:
                mark = styles[finding.status](f"{finding.status:7}")
                self.stdout.write(f"{mark}  {finding.check}: {finding.text}")
                if finding.advice:
                    self.stdout.write(f"         {finding.advice}")
        if options["json"]:
            self.show_json([finding._asdict() for finding in found])
        if failed := sum(finding.status == "failed" for finding in found):
            raise CommandError(f"{failed} of {len(found)} failed")
