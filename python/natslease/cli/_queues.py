"""``natslease queues`` and ``purge``."""

from __future__ import annotations

import time

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

import natslease
from natslease.show import age, number, queue_rows, size

from ._command import confirm, connected, yes_option
from ._output import Column, Output, make_table
from ._queue import find_queue

_COLUMNS: dict[str, Column] = {
    "stream": ("QUEUE", str),
    "consumer": ("CONSUMER", str),
    "pending": ("PENDING", number),
    "leased": ("LEASED", number),
    "redelivered": ("REDELIVERED", number),
    "waiting": ("WAITING PULLS", number),
    "bytes": ("SIZE", size),
    "oldest_at": ("OLDEST", age),
}


@click.command("queues")
@click.argument("pattern", default="*")
@click.option("--interval", type=click.FloatRange(min=0.1), metavar="SECONDS", help="Go on.")
@connected
def queues(
    client: natslease.Client, output: Output, *, pattern: str, interval: float | None
) -> None:
    """List queues: streams whose names match PATTERN ("job_*"), and their consumers.

    PENDING tasks were not given out yet, LEASED ones are being worked on, REDELIVERED of these were
    given out before.
    """
    if interval is None:
        output.table(queue_rows(client, pattern), _COLUMNS, none=f"no streams match {pattern!r}")
    elif output.as_json:
        while True:
            output.json({"at": time.time(), "queues": queue_rows(client, pattern)})
            time.sleep(interval)
    else:
        with Live(console=output.console, auto_refresh=False) as live:
            while True:
                table = make_table(queue_rows(client, pattern), _COLUMNS)
                live.update(Group(Text(time.strftime("%X"), style="dim"), table), refresh=True)
                time.sleep(interval)


@click.command("purge")
@click.argument("stream", metavar="QUEUE")
@click.option(
    "--subject", metavar="SUBJECT", help="Of one queue in a stream that several queues share."
)
@yes_option
@connected
def purge(
    client: natslease.Client, output: Output, *, stream: str, subject: str | None, yes: bool
) -> None:
    """Delete all tasks of a queue, leased ones, too."""
    queue = find_queue(client, stream, subject, only_subject=True)
    confirm(f"Delete all tasks of {stream}{f', {subject}' if subject else ''}?", yes=yes)
    purged = queue.purge()
    output.record({"purged": purged}, f"{purged:,} tasks deleted")


COMMANDS = (queues, purge)
