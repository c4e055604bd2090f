"""Measures natslease beside nats.go, nats-py and natsrpy: one run, one server, the same payloads.

The sides take turns in rounds, so that what else the machine does hits all alike. Nothing is
checked about time: ratios are to be read, from a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass

import footprint
import machine
import outages
import sides
from natslease.testing import Server
from report import CROWD, PUBLISH, REFERENCE, Aim, Figure, Results, Series, show, write
from speaker import OUTPUT, Speaker, build_natsgo, natsgo, python

JETSTREAM = "nats.go jetstream"  # it publishes with message ids, as natslease does
BATCH = 64
THREADS = 16
CROWDED = (REFERENCE, JETSTREAM, "natslease")  # those that threads can share
AIMS = [
    Aim("reserve 1", 1.15),
    Aim("reserve 64", 1.2),
    Aim("ack 1", 1.3),
    Aim("ack 64", 0.5),
    Aim(PUBLISH, 0.8, more=True),
    Aim(PUBLISH, 0.8, beside=JETSTREAM, more=True),
    Aim(CROWD, 0.8, more=True),
    Aim("reserve 1", 1.0, ours="natslease in a loop", beside="natsrpy in a loop"),
    Aim("reserve 64", 1.3, ours="natslease in a loop", beside="natslease"),
    Aim("ack 64", 1.3, ours="natslease in a loop", beside="natslease"),
]
NAMES = {
    1: ("reserve 1", None, "ack 1"),
    BATCH: ("reserve 64", "reserve 64 and read all", "ack 64"),
}


@dataclass
class Size:
    """How much is measured."""

    rounds: int
    singles: int  # reserves of 1 in a round
    batches: int  # reserves of 64 in a round
    slow: int  # the divisor of both for who connects for each call
    crowd: int  # tasks that threads reserve in a round, one by one
    publish_rounds: int
    published: int
    runs: int  # fresh processes
    queues: tuple[int, ...]
    queue_rounds: int
    queue_reserves: int


FULL = Size(12, 250, 25, 5, 960, 3, 100_000, 11, (1, 10, 100, 1_000), 4, 1_000)
SHORT = Size(2, 10, 2, 2, 64, 1, 2_000, 2, (1, 20), 2, 20)


def payload() -> str:
    """A task of the application's shape, of 230 bytes."""
    url = "https://images.example.org/deployments/17/captures/2026/07/"
    task = {"id": "1234567", "image_id": "7654321", "image_url": url}
    task["image_url"] += "x" * (226 - len(json.dumps(task))) + ".jpg"
    text = json.dumps(task)
    assert len(text) == 230
    return text


class Bench:
    """One run."""

    def __init__(self, url: str, size: Size, stack: ExitStack) -> None:
        self.size = size
        self.payload = payload()
        self.url = url
        self.stack = stack
        self.arranger = self._start(natsgo(url))
        self.series: dict[str, dict[str, Series]] = defaultdict(lambda: defaultdict(Series))
        self.sides: dict[str, Speaker] = {}
        names = [REFERENCE, JETSTREAM, *sides.SYNC, *sides.ASYNC]
        self.streams = {name: f"side_{number}" for number, name in enumerate(names)}
        for name, stream in self.streams.items():
            self.arranger.ask("create", stream)
            if name in (REFERENCE, JETSTREAM):
                self.sides[name] = self._start(natsgo(url, old=name == REFERENCE))
            else:
                self.sides[name] = self._start(python(name, url, stream))

    def _start(self, speaker: Speaker) -> Speaker:
        self.stack.callback(speaker.close)
        return speaker

    def reserve(self, name: str, n: int, count: int, *, keep: bool) -> None:
        """Has a side reserve and acknowledge batches."""
        if name == "nats-py per call":
            count = max(1, count // self.size.slow)
        stream = self.streams[name]
        self.arranger.ask("refill", stream, count=n * count, payload=self.payload)
        answer = self.sides[name].ask("reserve", stream, n=n, count=count)
        if not keep:
            return
        for what, operation in zip(("reserve", "read", "ack"), NAMES[n], strict=True):
            if operation is not None:
                self.series[operation][name].values += [ns / 1e3 for ns in answer[what]]

    def crowd(self, name: str, *, keep: bool) -> None:
        """Has many threads of a side reserve one task after the other, at once."""
        stream, count = self.streams[name], self.size.crowd
        self.arranger.ask("refill", stream, count=count, payload=self.payload)
        answer = self.sides[name].ask("crowd", stream, n=THREADS, count=count)
        self.arranger.ask("refill", stream)  # with nothing: these are not acknowledged
        if keep:
            self.series[CROWD][name].values.append(count / (answer["crowd"] / 1e9))

    def publish(self, name: str) -> None:
        """Has a side publish."""
        stream, count = self.streams[name], self.size.published
        answer = self.sides[name].ask("publish", stream, count=count, payload=self.payload)
        self.series[PUBLISH][name].values.append(count / (answer["publish"] / 1e9))
        self.arranger.ask("refill", stream)  # with nothing

    def run(self) -> None:
        """Measures all sides in turns; the side that begins is another one in each round."""
        names = list(self.sides)
        for round_ in range(-1, self.size.rounds):
            turn = names[round_ % len(names) :] + names[: round_ % len(names)]
            progress(f"round {round_ + 1} of {self.size.rounds}")
            for n, count in ((1, self.size.singles), (BATCH, self.size.batches)):
                for name in turn:
                    self.reserve(name, n, count if round_ >= 0 else 2, keep=round_ >= 0)
            for name in turn:
                if name in CROWDED:
                    self.crowd(name, keep=round_ >= 0)
        for round_ in range(self.size.publish_rounds):
            for name in names:
                if name != "nats-py per call":
                    progress(f"publish {round_ + 1} of {self.size.publish_rounds}: {name}")
                    self.publish(name)

    def queues(self) -> list[Figure]:
        """Measures whether a reserve costs more when a process uses many queues."""
        size, names = self.size, [f"queue_{number}" for number in range(max(self.size.queues))]
        for number, name in enumerate(names):
            if number % 100 == 0:
                progress(f"creating queues: {number:,} of {len(names):,}")
            self.arranger.ask("create", name)
        ours: dict[int, Series] = defaultdict(Series)
        control: dict[int, Series] = defaultdict(Series)
        users = {n: footprint.Queues(self.url, names[:n]) for n in size.queues}
        for user in users.values():
            self.stack.callback(user.close)
        for round_ in range(-1, size.queue_rounds):
            for n, user in users.items():
                progress(f"{n:,} queues, round {round_ + 1} of {size.queue_rounds}")
                times = []
                for measure in (user.reserve, self._reserve_in_turn):
                    each = -(-size.queue_reserves // n)
                    for name in names[:n]:
                        self.arranger.ask("refill", name, count=each, payload=self.payload)
                    times.append(measure(names[:n], each * n))
                if round_ >= 0:
                    ours[n].values += times[0]
                    control[n].values += times[1]
        one = size.queues[0]
        return [
            Figure(
                f"reserve 1 from {n:,} queues in turn, over one",
                ours[n].median / ours[one].median,
                "x",
                1.2,
                f"nats.go {control[n].median / control[one].median:.2f} x",
            )
            for n in size.queues[1:]
        ]

    def _reserve_in_turn(self, names: list[str], count: int) -> list[int]:
        """What footprint.Queues does, by nats.go: what the server contributes."""
        go = self.sides[REFERENCE]
        times: list[int] = []
        for i in range(count):
            times += go.ask("reserve", names[i % len(names)], n=1, count=1)["reserve"]
        return times


def of_outages(short: bool) -> list[Figure]:
    """Measures outages, floods and many queues, each against a server of its own."""
    progress("breaker and bounds")
    hot_path = outages.hot_path_us(short)
    progress("a flood")
    seconds, many, rounds = (1.0, 50, 3) if short else (10.0, 500, 20)
    with Server() as server:
        pulls, answers = outages.flood(server, 64, seconds)
        progress(f"reserve_any over {many} queues")
        many_queues = outages.any_of_many(server, many, rounds)
    progress("a server that returns")
    late = outages.return_of_the_server(1 if short else 10)
    figures = [
        Figure("breaker and bounds on the way of a call", hot_path, "us", 2.0),
        Figure(
            f"pulls of 64 threads that poll an empty queue for {seconds:.0f} s",
            pulls,
            "",
            5 * seconds,
            f"{answers:,} answers",
        ),
        Figure(
            f"reserve_any over {many} queues, the first time",
            many_queues.first,
            "ms",
            10.0,
            f"{many_queues.all_looked_at:.1f} ms if all must be looked at",
        ),
        Figure(
            "reserve_any afterwards, over reserve 64",
            many_queues.known / many_queues.reserve,
            "x",
            3.0,
        ),
        Figure("first success after cool-down, worst", max(late), "ms", 100.0),
    ]
    if not short:
        progress("a leader that is killed")
        without, after = outages.leader_killed()
        control = f"the servers took {without:.1f} s"
        figures.append(
            Figure("work after a killed leader's successor", after, "ms", 1000.0, control)
        )
    return figures


def progress(text: str) -> None:
    """Says what is being done, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="as little as possible, for CI")
    short = parser.parse_args().short
    size = SHORT if short else FULL
    began = time.monotonic()
    logging.getLogger("natslease").addHandler(logging.NullHandler())
    build_natsgo()
    with Server() as server, ExitStack() as stack:
        where = machine.describe(server)
        fresh = footprint.fresh(server.url, size.runs)
        forked = footprint.forked(server.url, size.runs)
        bench = Bench(server.url, size, stack)
        bench.run()
        figures = bench.queues()
    figures += of_outages(short)
    progress("circuit breaker")
    opened = Series([ns / 1e6 for ns in footprint.breaker_open(100 if short else 1_000)])
    figures += [
        Figure("call while the circuit breaker is open, p99", opened.quantile(0.99), "ms", 1.0),
        Figure("import natslease", fresh["import_ms"], "ms", 15.0),
        Figure("first use: load and connect", fresh["first_use_ms"], "ms", 20.0),
        Figure("first use in a forked child", forked, "ms", 15.0),
        Figure("memory added", fresh["memory_mb"], "MB", 12.0),
        Figure("size of the extension", footprint.extension_mib(), "MiB", 8.0),
    ]
    progress("")
    results = Results(where, AIMS, bench.series, figures)
    show(results)
    write(results, OUTPUT, short=short)
    print(f"All of it took {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
