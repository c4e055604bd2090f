"""One of the processes that drain the queue."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import TypeVar

import natslease

ACK_WAIT = 10.0
BATCH = 64
WAIT = 0.5
TIMEOUT = 2.0

T = TypeVar("T")


@dataclass
class Calls:
    """How long calls took, beside their deadlines."""

    longest: tuple[float, str] = (0.0, "")  # seconds, operation
    latest: float = float("-inf")  # seconds past the deadline
    failed: Counter[str] = field(default_factory=Counter)

    def time(self, call: Callable[..., T], *arguments: object, **options: float) -> T:
        """Makes a call. Errors that pass are counted."""
        began = time.monotonic()
        try:
            return call(*arguments, timeout=TIMEOUT, **options)
        except natslease.Error as error:
            self.failed[error.code] += 1
            raise
        finally:
            took = time.monotonic() - began
            self.longest = max(self.longest, (took, call.__name__))
            self.latest = max(self.latest, took - TIMEOUT)


@dataclass
class Worked:
    """A batch was worked on; nothing is acknowledged yet."""

    pid: int
    tasks: list[str]


@dataclass
class Done:
    """The server has confirmed the acks of these tasks."""

    pid: int
    tasks: list[str]


@dataclass
class Trouble:
    """A call failed, and will be made again."""

    pid: int
    code: str


@dataclass
class Ended:
    """The last word of a worker."""

    pid: int
    calls: Calls
    sessions: int


def open_queue(client: natslease.Client) -> natslease.Queue:
    """The queue of this demonstration."""
    return client.queue(
        "job_1", subject="job.1.tasks", consumer="job-1-consumer", ack_wait=ACK_WAIT, max_deliver=5
    )


def main(url: str, moment: float, stop: Event, parent: Connection) -> None:
    """Reserves, works for a moment on each task, and acknowledges, until told to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    pid = os.getpid()
    calls = Calls()
    client = natslease.Client(url, timeout=TIMEOUT)
    queue = open_queue(client)
    while not stop.is_set():
        try:
            batch = calls.time(queue.reserve, BATCH, wait=WAIT)
        except (natslease.Unavailable, natslease.DeadlineExceeded) as error:
            parent.send(Trouble(pid, error.code))
            stop.wait(max(error.retry_after, 0.05))
            continue
        if not batch:
            stop.wait(batch.retry_after)
            continue
        for lease in batch:
            lease.json()
            time.sleep(moment)
        parent.send(Worked(pid, [lease.id for lease in batch]))
        _ack(queue, list(batch), calls, parent)
    parent.send(Ended(pid, calls, client.stats().sessions_opened))
    client.close()


def _ack(
    queue: natslease.Queue, leases: list[natslease.Lease], calls: Calls, parent: Connection
) -> None:
    """Acknowledges until the server has said what became of each."""
    pid = os.getpid()
    while leases:
        batch, leases = leases, []
        results = calls.time(queue.ack, batch)
        done, pause = [], 0.0
        for lease, result in zip(batch, results, strict=True):
            if result.status == "settled":
                done.append(lease.id)
            elif result.status == "unknown" and result.error:
                # It may have happened; to say it twice is no harm.
                leases.append(lease)
                code, pause = result.error.code, max(pause, result.error.retry_after, 0.05)
        parent.send(Done(pid, done))
        if leases:
            calls.failed[code] += 1
            parent.send(Trouble(pid, code))
            time.sleep(pause)
