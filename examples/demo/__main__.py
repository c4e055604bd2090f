"""Publishes tasks, drains them with several processes, and freezes the server meanwhile.

Nothing is lost, and no call outlives its deadline: the exit status says whether that was so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Event

from progress import Board

import natslease
import worker
from natslease.testing import Server

PROCESSES = 4
CHUNK = 1_000
GRACE = 0.25  # seconds that a call may be late: the machine has other things to do as well
LIMIT = 45.0  # seconds for everything


@dataclass
class Size:
    """How much is done."""

    tasks: int
    moment: float  # seconds of work on a task
    freeze: float  # seconds


FULL = Size(tasks=20_000, moment=0.001, freeze=3.0)
SHORT = Size(tasks=2_000, moment=0.001, freeze=1.5)


@dataclass
class Run:
    """What is known of the run."""

    size: Size
    published: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    worked: Counter[str] = field(default_factory=Counter)
    share: Counter[int] = field(default_factory=Counter)
    state: dict[int, str] = field(default_factory=dict)
    ended: dict[int, worker.Ended] = field(default_factory=dict)
    calls: worker.Calls = field(default_factory=worker.Calls)
    at_a_time: Counter[int] = field(default_factory=Counter)  # most connections, by process
    last: float = 0.0  # when a task was last done
    publish_seconds: float = 0.0
    seconds: float = 0.0

    def take(self, message: object) -> None:
        """Notes what a worker has said."""
        if isinstance(message, worker.Worked):
            self.worked.update(message.tasks)
        elif isinstance(message, worker.Done):
            self.done.update(message.tasks)
            self.last = time.monotonic()
            self.share[message.pid] += len(message.tasks)
            self.state[message.pid] = ""
        elif isinstance(message, worker.Trouble):
            self.state[message.pid] = message.code
        elif isinstance(message, worker.Ended):
            self.ended[message.pid] = message
            self.state[message.pid] = ""


def main() -> int:
    """Runs the demonstration; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a tenth of it, for CI")
    run = Run(SHORT if parser.parse_args().short else FULL)
    with Server() as server:
        print(f"nats-server {server.varz()['version']} at {server.url}, pid {server.pid}")
        board = Board()
        client = natslease.Client(server.url, timeout=worker.TIMEOUT)
        publish(worker.open_queue(client), run, board)
        with workers(server.url, run.size.moment) as (stop, links):
            drain(server, links, run, board)
            stop.set()
            finish(links, run)
        board.finish()
        left = worker.open_queue(client).info()
        client.close()
        return summary(server, run, left)


def publish(queue: natslease.Queue, run: Run, board: Board) -> None:
    """Fills the queue."""
    queue.ensure()
    began = time.monotonic()
    for start in range(0, run.size.tasks, CHUNK):
        messages = [
            natslease.Message(
                json.dumps(
                    {
                        "id": str(n),
                        "image_id": str(1_000_000 + n),
                        "image_url": f"https://images.example.org/captures/2026/{n:08}.jpg",
                    }
                ).encode(),
                id=f"task-{n}",
            )
            for n in range(start, min(start + CHUNK, run.size.tasks))
        ]
        report = run.calls.time(queue.publish, messages)
        run.published.update(result.id for result in report.accepted)
        board.bar("published", len(run.published), run.size.tasks)
    run.publish_seconds = time.monotonic() - began


@contextmanager
def workers(url: str, moment: float) -> Iterator[tuple[Event, list[Connection]]]:
    """The processes that drain the queue, forked from this one, whose connection stays its own."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    processes, links = [], []
    with warnings.catch_warnings():
        # From Python 3.12: a process with threads should not fork. natslease and this program can.
        warnings.simplefilter("ignore", DeprecationWarning)
        for _ in range(PROCESSES):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=worker.main, args=(url, moment, stop, theirs), daemon=True
            )
            process.start()
            theirs.close()
            processes.append(process)
            links.append(ours)
    try:
        yield stop, links
    finally:
        for process in processes:
            process.join(5)
            process.kill()
            process.join()


def drain(server: Server, links: list[Connection], run: Run, board: Board) -> None:
    """Watches the workers until all is done, and freezes the server when a third is."""
    began = time.monotonic()
    thaw_at = float("inf")
    frozen = False
    look_at = began
    while len(run.done) < len(run.published) and time.monotonic() < began + LIMIT:
        for link in wait(links, timeout=0.05):
            assert isinstance(link, Connection)
            try:
                run.take(link.recv())
            except EOFError:
                links.remove(link)
        now = time.monotonic()
        if thaw_at == float("inf") and len(run.done) >= run.size.tasks // 3:
            server.freeze()
            frozen, thaw_at = True, now + run.size.freeze
            board.say("server", f"frozen for {run.size.freeze} s")
        elif frozen and now >= thaw_at:
            server.thaw()
            frozen, look_at = False, now + 0.5
            board.say("server", "goes on")
        if not frozen and now >= look_at:
            look_connections(server, run)
            look_at = now + 0.25
        waiting = not frozen and run.done and now - run.last > 1.0
        # They went to connections that were given up while the server was frozen.
        note = f"the others come again after {worker.ACK_WAIT} s" if waiting else ""
        board.bar("done", len(run.done), run.size.tasks, note)
        for pid, share in sorted(run.share.items()):
            board.bar(f"pid {pid}", share, run.size.tasks, run.state[pid])
    run.seconds = time.monotonic() - began
    if frozen:
        server.thaw()


def look_connections(server: Server, run: Run) -> None:
    """Counts the connections that each process has at this moment."""
    open_now = Counter(
        int(connection["name"].split()[-1])
        for connection in server.connz()["connections"]
        if connection.get("name")
    )
    run.at_a_time |= open_now  # the larger of both


def finish(links: list[Connection], run: Run) -> None:
    """Hears the workers out."""
    deadline = time.monotonic() + 10
    while links and time.monotonic() < deadline:
        for link in wait(links, timeout=0.1):
            assert isinstance(link, Connection)
            try:
                run.take(link.recv())
            except EOFError:
                links.remove(link)


def summary(server: Server, run: Run, left: natslease.QueueInfo) -> int:
    """Prints how it went; returns the exit status."""
    every = [run.calls, *(ended.calls for ended in run.ended.values())]
    lost = run.published - run.done
    twice = sum(1 for times in run.worked.values() if times > 1)
    took, operation = max(calls.longest for calls in every)
    late = max(calls.latest for calls in every)
    failed = sum((calls.failed for calls in every), Counter[str]())
    opened = [ended.sessions for ended in run.ended.values()]
    rows = [
        ("published", f"{len(run.published):,} in {run.publish_seconds:.2f} s"),
        ("done", f"{len(run.done):,} in {run.seconds:.1f} s, {run.size.freeze} s of it frozen"),
        ("lost", f"{len(lost):,} (left in the queue: {left.num_pending + left.num_ack_pending:,})"),
        ("done twice", f"{twice:,}"),
        ("tasks/s", f"{len(run.done) / run.seconds:,.0f} by {len(run.share)} processes"),
        (
            "connections",
            f"at most {max(run.at_a_time.values(), default=0)} at a time for each process; "
            f"opened: {', '.join(map(str, opened))}",
        ),
        ("longest call", f"{operation} {took:.3f} s, deadline {worker.TIMEOUT:.3f} s"),
        ("latest call", f"{late:+.3f} s beside its deadline"),
        ("failed calls", ", ".join(f"{k} {n}" for k, n in failed.most_common()) or "none"),
    ]
    print()
    for label, text in rows:
        print(f"{label:<14}{text}")
    problems = []
    if lost or len(run.published) < run.size.tasks:
        problems.append("tasks were lost")
    if late > GRACE:
        problems.append(f"a call was {late:.3f} s late")
    if len(run.ended) < PROCESSES:
        problems.append("a worker died")
    if max(run.at_a_time.values(), default=0) > 1:
        problems.append("a process had more than one connection")
    print("\n" + ("FAILED: " + "; ".join(problems) if problems else "Nothing was lost."))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
