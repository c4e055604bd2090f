"""Measures how natslease and the server do with many queues, and with many client processes.

``make sizing`` writes the tables into docs/explanation/sizing.md. Nothing is checked about time.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from speaker import build_natsgo


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
    consumers=(100, 1_000),
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


@dataclass
class Part:
    """One of the tables.

    Attributes:
        name: stands in the marks of its place in the page, with ``sizing-`` before it.
        counts: what each column is measured with.
        what: a column is headed by a count of these; with its plural.
        rows: how each row shows what was measured.
    """

    name: str
    counts: tuple[int, ...]
    what: tuple[str, str]
    measure: Callable[[int], Any]
    rows: dict[str, Callable[[Any], str]]

    def run(self, say: Callable[[str], None]) -> str:
        """Measures, and returns the table."""
        found = []
        for count in self.counts:
            say(f"{self.name}: {self.heading(count)}")
            found.append(self.measure(count))
        cells = [[what, *(show(column) for column in found)] for what, show in self.rows.items()]
        return table(["", *map(self.heading, self.counts)], cells)

    def heading(self, count: int) -> str:
        """A column's."""
        return f"{count:,} {self.what[count > 1]}"


def parts(size: Size) -> list[Part]:
    """The tables, in their order."""
    queues, processes = ("queue", "queues"), ("process", "processes")

    def laid_out(calls: int, layout: Layout) -> Callable[[int], Found]:
        return lambda count: manyqueues.measure(count, calls, layout)

    streams = laid_out(size.calls, Layout())
    consumers = laid_out(size.calls, Layout(one_stream=True))
    replicas = laid_out(size.replicated_calls, Layout(replicas=3))
    return [
        Part("streams", size.streams, queues, streams, QUEUE_ROWS),
        Part("consumers", size.consumers, queues, consumers, QUEUE_ROWS),
        Part("replicas", size.replicated, queues, replicas, QUEUE_ROWS),
        Part(
            "processes",
            size.processes,
            processes,
            lambda count: manyclients.measure(count, size.tasks),
            CROWD_ROWS,
        ),
    ]


def where() -> str:
    """On what it is measured, and when."""
    with Server() as server:
        found = machine.describe(server)
    day = datetime.now(timezone.utc).strftime("%d %B %Y").lstrip("0")
    names = ("cpu", "load", "python", "nats-server", "natslease")
    return f"Measured on {day}: " + ", ".join(f"{name} {found[name]}" for name in names) + "."


def main() -> None:
    """Measures, prints, and writes each table into the page when it is ready."""
    names = [part.name for part in parts(FULL)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="as little as possible, for CI")
    parser.add_argument("--page", type=Path, help="write the tables between the marks of this page")
    parser.add_argument("--part", action="append", choices=names, help="only this one")
    options = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr, flush=True)

    def show(name: str, text: str) -> None:
        print(f"\n{text}", flush=True)
        if options.page:
            from replay.figures import insert

            insert(options.page, f"sizing-{name}", text)

    logging.getLogger("natslease").addHandler(logging.NullHandler())
    build_natsgo()
    show("where", where())
    for part in parts(SHORT if options.short else FULL):
        if part.name in (options.part or names):
            show(part.name, part.run(say))
    say("done")


if __name__ == "__main__":
    main()
