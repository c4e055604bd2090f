"""Measures how natslease and the server do with many queues, and with many client processes.

``make sizing`` writes the tables into docs/explanation/sizing.md. Nothing is checked about time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import machine
import manyclients
import manyqueues
from manyclients import Crowd
from manyqueues import Found, Layout
from natslease.testing import Server
from report import Series, table
from speaker import OUTPUT, build_natsgo


@dataclass
class Size:
    """How much is measured."""

    streams: tuple[int, ...]  # a stream for each queue
    consumers: tuple[int, ...]  # consumers of one stream
    replicated: tuple[int, ...]  # a stream for each queue, on three servers
    calls: int
    replicated_calls: int
    processes: tuple[int, ...]
    tasks: int


FULL = Size(
    streams=(1, 100, 1_000, 5_000),
    consumers=(1_000, 5_000),
    replicated=(1, 100),
    calls=5_000,
    replicated_calls=1_000,
    processes=(1, 4, 16, 64),
    tasks=60_000,
)
SHORT = Size((1, 20), (20,), (2,), 40, 10, (1, 2), 400)


def _times(series: Series) -> str:
    return f"{series.median:,.0f} ({series.quantile(0.99):,.0f})"


def _seconds(value: float) -> str:
    return f"{value:,.2f}"


def _ms(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


QUEUE_ROWS: dict[str, Callable[[Found], str]] = {
    "create a queue, 16 at a time: ms each": lambda f: f"{f.create_ms:.2f}",
    "publish 4 tasks: us": lambda f: _times(f.publish),
    "reserve 4: us": lambda f: _times(f.reserve),
    "ack 4: us": lambda f: _times(f.ack),
    "tasks/s, reserved and acked by one thread": lambda f: f"{f.rate:,.0f}",
    "reserve_any up to 64 over all, first: ms": lambda f: _ms(f.any_first_ms),
    "reserve_any up to 64 over all, afterwards: ms": lambda f: _ms(f.any_ms),
    "client.streams(): ms": lambda f: _ms(f.list_ms),
    "client.streams(consumers=True): ms": lambda f: _ms(f.list_consumers_ms),
    "`natslease queues`: s": lambda f: f"{f.command_s:.2f}",
    "fleet.sweep(), only looking: ms": lambda f: _ms(f.sweep_ms),
    "server: memory, MB": lambda f: f"{f.memory_mb:,.0f}",
    "server: file descriptors": lambda f: f"{f.descriptors:,}",
    "server: cores busy, in use": lambda f: f"{f.cores:.2f}",
    "server: cores busy, idle": lambda f: f"{f.cores_idle:.2f}",
    "server: stop (SIGTERM): s": lambda f: _seconds(f.stop_s),
    "server: start after that: s": lambda f: _seconds(f.restart_s),
    "server: start after kill -9: s": lambda f: _seconds(f.recover_s),
}
CROWD_ROWS: dict[str, Callable[[Crowd], str]] = {
    "tasks/s, reserved and acked by all": lambda c: f"{c.rate:,.0f}",
    "reserve 8: us": lambda c: _times(c.reserve),
    "ack 8: us": lambda c: _times(c.ack),
    "connections": lambda c: f"{c.connections}",
    "server: cores busy": lambda c: f"{c.server_cores:.2f}",
    "clients: cores busy, together": lambda c: f"{c.client_cores:.2f}",
    "server: memory, MB": lambda c: f"{c.server_mb:,.0f}",
    "client: memory of its own, MB": lambda c: f"{c.client_mb:.1f}",
}


def _columns(found: Sequence[Any], rows: dict[str, Callable[[Any], str]], head: list[str]) -> str:
    cells = [[what, *(show(column) for column in found)] for what, show in rows.items()]
    return table(["", *head], cells)


@dataclass
class Results:
    """All that was measured."""

    where: dict[str, str]
    streams: list[Found]
    consumers: list[Found]
    replicated: list[Found]
    crowds: list[Crowd]

    def text(self) -> str:
        """The tables, as Markdown."""
        day = datetime.now(timezone.utc).strftime("%d %B %Y").lstrip("0")
        where = ", ".join(f"{part} {value}" for part, value in self.where.items())
        return "\n\n".join(
            (
                f"Measured on {day}: {where}. Medians, in brackets the 99th percentile.",
                "### A stream for each queue, one server",
                _columns(self.streams, QUEUE_ROWS, _queues(self.streams)),
                "### A consumer of one stream for each queue, one server",
                _columns(self.consumers, QUEUE_ROWS, _queues(self.consumers)),
                "### A stream for each queue, three servers, three replicas",
                "Memory and descriptors are those of the largest server, cores those of all three.",
                _columns(self.replicated, QUEUE_ROWS, _queues(self.replicated)),
                "### Client processes on one queue, one server",
                _columns(
                    self.crowds,
                    CROWD_ROWS,
                    [_plural(c.processes, "process", "es") for c in self.crowds],
                ),
            )
        )


def _queues(found: Sequence[Found]) -> list[str]:
    return [_plural(f.queues, "queue", "s") for f in found]


def _plural(count: int, what: str, ending: str) -> str:
    return f"{count:,} {what}{ending if count > 1 else ''}"


def measure(size: Size) -> Results:
    """Measures all of it, part by part."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr, flush=True)

    def queues(counts: Sequence[int], calls: int, layout: Layout, what: str) -> list[Found]:
        found = []
        for count in counts:
            say(f"{count:,} queues, {what}")
            found.append(manyqueues.measure(count, calls, layout))
        return found

    with Server() as server:
        where = machine.describe(server)
    where = {part: where[part] for part in ("cpu", "load", "python", "nats-server", "natslease")}
    streams = queues(size.streams, size.calls, Layout(), "a stream each")
    consumers = queues(size.consumers, size.calls, Layout(one_stream=True), "consumers")
    replicated = queues(size.replicated, size.replicated_calls, Layout(replicas=3), "replicated")
    crowds = []
    for processes in size.processes:
        say(f"{processes} client processes")
        crowds.append(manyclients.measure(processes, size.tasks))
    say("done")
    return Results(where, streams, consumers, replicated, crowds)


def main() -> None:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="as little as possible, for CI")
    parser.add_argument("--page", type=Path, help="write the tables between the marks of this page")
    options = parser.parse_args()
    build_natsgo()
    results = measure(SHORT if options.short else FULL)
    print(results.text())
    plain = json.dumps(asdict(results), indent=1)
    (OUTPUT / "sizing.json").write_text(plain + "\n")
    if options.page:
        from replay.figures import insert

        insert(options.page, "sizing", results.text())


if __name__ == "__main__":
    main()
