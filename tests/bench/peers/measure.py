"""What is measured of a row: enqueueing, working off, and the time in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from speaker import Speaker

from .brokers import Brokers, descendants
from .rows import Row
from .setting import Reader, Setting

BATCH = 64
LEASE = 30  # seconds, where nobody is killed
_PATIENCE = 60.0
# Python 3.12 and later warn of every fork of a process with threads.
_PYTHON = (sys.executable, "-W", "ignore::DeprecationWarning", "-m", "peers.clerk")


@dataclass(frozen=True)
class Size:
    """How much is measured; by row divided by its slowness.

    Attributes:
        singles: tasks that are enqueued one by one, in so many seconds at most.
        many: tasks that are enqueued at once.
        work: tasks that are worked off, a multiple of BATCH.
        pings: tasks that are enqueued for an idle worker, one by one.
    """

    singles: int
    seconds: float
    many: int
    work: int
    pings: int


class Place:
    """A queue that nobody else has, and who uses it."""

    def __init__(self, brokers: Brokers, row: Row, url: str = "", **options: Any) -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        fifo = folder / "taken"
        os.mkfifo(fifo)
        queue = f"q{next(_numbers)}"
        url = url or brokers.url(row.broker)
        self.setting = Setting(row.name, url, queue, str(fifo), **options)
        self.taken = self._stack.enter_context(Reader(str(fifo)))
        self._log = self._stack.enter_context((folder / "log").open("a+"))

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            if isinstance(error, (RuntimeError, TimeoutError)):
                self._log.seek(0)
                print(self._log.read()[-4000:], file=sys.stderr)

    def clerk(self) -> Speaker:
        """Starts a process that enqueues."""
        clerk = Speaker(*_PYTHON, env=self.setting.environment(), stderr=self._log)
        self._stack.callback(clerk.kill)
        return clerk

    @contextmanager
    def worker(self, **options: Any) -> Iterator[int]:
        """Runs a worker; it is killed in the end, with all of its processes."""
        setting = replace(self.setting, **options)
        command, environment = [*_PYTHON, "--worker"], setting.environment()
        process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log)
        try:
            yield process.pid
        finally:
            kill(process.pid)
            process.wait()


_numbers = count()


def kill(pid: int) -> None:
    """Kills a process and all that it has started, of which none can react to the others' end."""
    for process in [pid, *descendants(pid)]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
    for process in [*descendants(pid), pid]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def ask(clerk: Speaker, op: str, **arguments: object) -> Any:
    """A clerk's answer."""
    clerk.tell(op=op, **arguments)
    return clerk.hear(_PATIENCE)


def measure(brokers: Brokers, row: Row, size: Size) -> dict[str, list[float]]:
    """The values of one round, by what they are values of: microseconds, or tasks a second."""
    found: dict[str, list[float]] = {}
    work = size.work // row.slow
    if row.batches:
        work = max(2, work // BATCH) * BATCH
    if row.enqueues:
        with Place(brokers, row, lease=LEASE) as place:
            clerk = place.clerk()
            ask(clerk, "prepare")
            times = ask(clerk, "enqueue", count=size.singles, seconds=size.seconds)
            found["enqueue"] = [ns / 1e3 for ns in times]
            enqueued = len(times)
            if row.many:
                many = size.many // row.slow
                found["enqueue many"] = [many / (ask(clerk, "fill", count=many) / 1e9)]
                enqueued += many
            expect(row, "enqueued", ask(clerk, "left"), enqueued)
    for batch in (1, BATCH) if row.batches else (1,):
        with Place(brokers, row, lease=LEASE, batch=batch) as place:
            clerk = place.clerk()
            ask(clerk, "prepare")
            ask(clerk, "fill", count=work)
            expect(row, "enqueued", ask(clerk, "left"), work)
            with place.worker():
                name = "work off" if batch == 1 else "work off in batches"
                found[name] = [_rate(place, work, batch)]
                _await_empty(row, clerk)
                if batch == 1:
                    times = ask(clerk, "ping", count=size.pings)
                    found["to taken"] = [ns / 1e3 for ns in times]
                    _await_empty(row, clerk)
    return found


def _rate(place: Place, count: int, batch: int) -> float:
    """Tasks a second, without those of the time in which the worker starts."""
    # Of a batch all are taken at once: from the first of one batch to the first of another.
    steps = count // batch
    first, last = min(steps // 8, 32) * batch, (steps - 1) * batch
    times: list[int] = []
    for _ in range(count):
        taken = place.taken.next(_PATIENCE)
        if taken is None:
            raise RuntimeError(f"{place.setting.row}: {len(times)} of {count} tasks were taken")
        times.append(taken.taken)
    return (last - first) / ((times[last] - times[first]) / 1e9)


def _await_empty(row: Row, clerk: Speaker) -> None:
    """Returns when all tasks are acknowledged."""
    until = time.monotonic() + _PATIENCE / 4
    while left := ask(clerk, "left"):
        if time.monotonic() > until:
            raise RuntimeError(f"{row.name}: {left} tasks were not acknowledged")
        time.sleep(0.02)


def expect(row: Row, what: str, found: int, expected: int) -> None:
    """Raises unless as many tasks are there as must be."""
    if found != expected:
        raise RuntimeError(f"{row.name}: {found} of {expected} tasks were {what}")
