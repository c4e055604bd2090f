"""``natslease queues`` and ``purge``."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

import natslease

from ._command import confirm, connected, yes_option
from ._output import Column, Output, age, make_table, number, size

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
        output.table(_rows(client, pattern), _COLUMNS, none=f"no streams match {pattern!r}")
    elif output.as_json:
        while True:
            output.json({"at": time.time(), "queues": _rows(client, pattern)})
            time.sleep(interval)
    else:
        with Live(console=output.console, auto_refresh=False) as live:
            while True:
                table = make_table(_rows(client, pattern), _COLUMNS)
                live.update(Group(Text(time.strftime("%X"), style="dim"), table), refresh=True)
                time.sleep(interval)


def _rows(client: natslease.Client, pattern: str) -> list[dict[str, Any]]:
    rows = []
    for stream in client.streams(pattern, consumers=True):
        of_stream = {
            "stream": stream.name,
            "messages": stream.messages,
            "bytes": stream.bytes,
            "oldest_at": stream.first_at,
        }
        for consumer in stream.consumers:
            rows.append(  # noqa: PERF401 (two lists of fields)
                {
                    **of_stream,
                    "consumer": consumer.name,
                    "pending": consumer.num_pending,
                    "leased": consumer.num_ack_pending,
                    "redelivered": consumer.num_redelivered,
                    "waiting": consumer.num_waiting,
                }
            )
        if not stream.consumers:
            none = {"consumer": "", "pending": stream.messages, "leased": 0}
            rows.append({**of_stream, **none, "redelivered": 0, "waiting": 0})
    return rows


@click.command("purge")
@click.argument("stream", metavar="QUEUE")
@yes_option
@connected
def purge(client: natslease.Client, output: Output, *, stream: str, yes: bool) -> None:
    """Delete all tasks of a queue, leased ones, too."""
    queue = client.queue(stream)
    confirm(f"Delete all tasks of {stream}?", yes=yes)
    purged = queue.purge()
    output.record({"purged": purged}, f"{purged:,} tasks deleted")


COMMANDS = (queues, purge)
