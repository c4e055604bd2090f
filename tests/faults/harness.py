"""Makes calls under a fault, in waves, and keeps account of how they ended."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import natslease
from children import descriptors
from faults import FAULTS, Fault
from operations import (
    LEASE_OPERATIONS,
    OPERATIONS,
    Operation,
    Subject,
    Verdict,
    acall,
    call,
    settles,
)
from timing import Sleeper

# Calls end one after the other, as those of a real program do.
_SPREAD = 0.5
_CONNECT_TIMEOUT = 0.3
# To so many calls there is one thread, or task, that sleeps: its lateness is the machine's.
_CONTROL = 3
# 12 MB.
_STUFF = [b"x" * 100_000] * 120
_PATIENCE = 10.0


@dataclass
class Call:
    """One call, and how it ended."""

    operation: str
    timeout: float
    verdict: str
    lateness: float
    """Seconds after its timeout, less those by which a sleeper beside it was late."""
    explanation: str = ""
    control: float = 0.0
    """Seconds by which a sleeper beside it was late."""


@dataclass
class Size:
    """What a process has."""

    goroutines: int
    descriptors: int
    memory: int
    """Resident, in bytes."""


@dataclass
class Run:
    """All calls of one API under one fault."""

    fault: str
    face: str
    server: str
    calls: list[Call] = field(default_factory=list)
    before: Size | None = None
    after: Size | None = None
    contradictions: list[str] = field(default_factory=list)
    """What was found in the queue against the word of a publish."""
    seconds: float = 0.0


def run(fault: str, face: str, waves: int, width: int) -> Run:
    """Makes ``waves`` times ``width`` calls of each operation.

    The first quarter of the waves is to warm up: growth is counted from there.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        made = FAULTS[fault](stack)
        result = Run(fault, face, str(made.server.varz()["version"]))
        api = FACES[face]()
        stack.enter_context(api)
        scene = Scene(made, api, width)
        for number in range(waves):
            result.calls += scene.wave(made.timeouts[number % len(made.timeouts)])
            result.contradictions += scene.contradictions()
            if number == max(waves // 4 - 1, 0):
                result.before = scene.size()
        assert result.before is not None
        result.after = scene.size(result.before.goroutines)
    result.seconds = time.monotonic() - began
    return result


def _sleeps(calls: list[tuple[Operation, Subject]]) -> list[float]:
    """For how long some do nothing but sleep: as long as calls, in the same way, beside them."""
    return [subject.timeout for _, subject in calls[::_CONTROL]]


class Sync:
    """The synchronous API: calls are made at the same time by threads."""

    client = natslease.Client

    def __enter__(self) -> Sync:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def do(self, answer: Any) -> Any:
        return answer

    def together(
        self,
        calls: list[tuple[Operation, Subject]],
        begun: Callable[[], None],
        sleeper: Sleeper,
    ) -> list[Timed]:
        over = threading.Event()  # all calls have ended
        sleeps = _sleeps(calls)
        start = threading.Barrier(len(calls) + len(sleeps))
        beginning = iter(range(len(calls) - 1, -1, -1))

        def make(operation: Operation, subject: Subject) -> Timed:
            start.wait()
            if next(beginning) == 0:
                begun()
            began = time.monotonic()
            verdict = call(operation, subject)
            return began, time.monotonic(), verdict

        def sleep(seconds: float) -> None:
            start.wait()
            due = time.monotonic() + seconds
            if not over.wait(seconds):
                sleeper.note(due)

        with ThreadPoolExecutor(len(calls) + len(sleeps)) as threads:
            made = [threads.submit(make, operation, subject) for operation, subject in calls]
            asleep = [threads.submit(sleep, seconds) for seconds in sleeps]
            ended = [future.result() for future in made]
            over.set()
            for future in asleep:
                future.result()
            return ended


class Async:
    """The asynchronous API: calls are made at the same time by one event loop."""

    client = natslease.AsyncClient

    def __enter__(self) -> Async:
        self._loop = asyncio.new_event_loop()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.close()

    def do(self, answer: Any) -> Any:
        async def wait() -> Any:
            return await answer

        return self._loop.run_until_complete(wait())

    def together(
        self,
        calls: list[tuple[Operation, Subject]],
        begun: Callable[[], None],
        sleeper: Sleeper,
    ) -> list[Timed]:
        async def sleep(seconds: float) -> None:
            due = time.monotonic() + seconds
            await asyncio.sleep(seconds)
            sleeper.note(due)

        async def make(operation: Operation, subject: Subject) -> Timed:
            began = time.monotonic()
            verdict = await acall(operation, subject)
            return began, time.monotonic(), verdict

        async def make_all() -> list[Timed]:
            made = [asyncio.ensure_future(make(*one)) for one in calls]
            asleep = [asyncio.ensure_future(sleep(seconds)) for seconds in _sleeps(calls)]
            await asyncio.sleep(0)
            begun()
            ended = await asyncio.gather(*made)
            for task in asleep:
                task.cancel()
            await asyncio.gather(*asleep, return_exceptions=True)
            return ended

        return self._loop.run_until_complete(make_all())


# When a call began, when it ended, and how.
Timed = tuple[float, float, Verdict]
FACES: dict[str, type[Sync | Async]] = {"sync": Sync, "async": Async}


class Scene:
    """A fault, and the clients that meet it."""

    def __init__(self, fault: Fault, face: Sync | Async, width: int) -> None:
        self.fault = fault
        self.face = face
        self.width = width
        self.operations = {**OPERATIONS, **(LEASE_OPERATIONS if fault.connected else {})}
        self._chance = random.Random(0)
        self._waves = 0
        self._told: list[str] = []
        self._healthy = natslease.Client(fault.server.url, name="healthy", timeout=_PATIENCE)

    def wave(self, timeout: float) -> list[Call]:
        """One fault, and ``width`` calls of each operation at the same time."""
        client = self._client("faulty")
        queues = self._prepare(client)
        lonely = [self._client(f"lonely {number}") for number in range(self.width)]
        if self.fault.connected:
            for other in lonely:
                self.face.do(other.ping(timeout=_PATIENCE))
        calls = [
            (name, operation, self._subject(client, queues, lonely[number], timeout))
            for name, operation in self.operations.items()
            for number in range(self.width)
        ]
        self._chance.shuffle(calls)
        try:
            self.fault.begin(lambda: self._stuff(queues["other"]))
            with Sleeper.beside() as sleeper:
                ended = self.face.together(
                    [(operation, subject) for _, operation, subject in calls],
                    self.fault.begun,
                    sleeper,
                )
        finally:
            self.fault.end()
        for each in (client, *lonely):
            with suppress(natslease.ClientClosed):
                self.face.do(each.close(timeout=_PATIENCE))
        self._told = [
            verdict.text
            for (name, *_), (*_, verdict) in zip(calls, ended, strict=True)
            if name == "queue.publish"
        ]
        return [
            Call(
                name,
                subject.timeout,
                verdict.text,
                end - begin - subject.timeout - sleeper.lateness(begin, end),
                verdict.explanation,
                sleeper.lateness(begin, end),
            )
            for (name, _, subject), (begin, end, verdict) in zip(calls, ended, strict=True)
        ]

    def contradictions(self) -> list[str]:
        """Compares what the publishes of the last wave have said with what is in the queue."""
        queue = self._published
        messages = _ensure(queue).info().messages
        accepted = self._told.count("ok")
        perhaps = sum(text.endswith("/unknown") for text in self._told)
        queue.delete()
        if accepted <= messages <= accepted + perhaps:
            return []
        return [f"{messages} messages in the queue: {accepted} were accepted, {perhaps} perhaps"]

    def _client(self, name: str) -> Any:
        limit = _PATIENCE if self.fault.connected else _CONNECT_TIMEOUT
        return self.face.client(self.fault.url, name=name, connect_timeout=limit)

    def _prepare(self, client: Any) -> dict[str, Any]:
        """The wave's queues: they exist, and have what the calls need."""
        lease_operations = sum(map(settles, self.operations))
        for name, options in _QUEUES.items():
            _ensure(self._healthy.queue(name, **options)).purge()
        healthy = self._healthy.queue("failing", **_QUEUES["failing"])
        healthy.discard(healthy.dead_letters(1_000))
        _publish(healthy, 2 * self.width)
        healthy.nak(_reserve(healthy, 2 * self.width), reason="on purpose")
        self._letters = iter(healthy.dead_letters())
        queues = {name: client.queue(name, **options) for name, options in _QUEUES.items()}
        # One of its own for each wave: what was on its way when the last one ended goes nowhere.
        self._waves += 1
        self._published = self._healthy.queue(f"published-{self._waves}")
        self._published.ensure()
        queues["published"] = client.queue(self._published.stream)
        work = self._healthy.queue("work", **_QUEUES["work"])
        count = self.width * lease_operations
        _publish(work, count)
        _publish(self._healthy.queue("stock", **_QUEUES["stock"]), 4 * self.width)
        if self.fault.connected:
            self._leases = iter(_reserve(queues["work"], count, self.face.do))
        else:
            self._leases = iter([lease.ack_subject for lease in _reserve(work, count)])
        return queues

    def _subject(self, client: Any, queues: dict[str, Any], lonely: Any, timeout: float) -> Subject:
        spread = timeout * (1 + _SPREAD * self._chance.random())
        return Subject(
            client=client, lonely=lonely, leases=self._leases, letters=self._letters,
            timeout=spread, **queues,
        )  # fmt: skip

    def _stuff(self, queue: Any) -> None:
        with suppress(natslease.Error):
            self.face.do(queue.publish(_STUFF, timeout=0.1))

    def size(self, bound: int = 0) -> Size:
        """What the process has at rest: when nothing ends any more, and goroutines are not above
        the bound. Look-ups that were given up end by their own time-outs.
        """
        deadline = time.monotonic() + _PATIENCE
        seen: list[tuple[int, int]] = []
        while True:
            now = (self._healthy.stats().goroutines, len(descriptors()))
            seen.append(now)
            at_rest = seen[-5:] == [now] * 5 and (not bound or now[0] <= bound)
            if at_rest or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return Size(*now, pages * os.sysconf("SC_PAGESIZE"))


_QUEUES: dict[str, dict[str, Any]] = {
    "work": {"ack_wait": 60.0, "max_ack_pending": 10_000},
    "stock": {"ack_wait": 60.0, "max_ack_pending": 10_000},
    "failing": {"max_deliver": 1, "dead_letters": "dead"},
    "other": {"max_bytes": 32 << 20, "discard": "old", "retention": "limits"},
    "empty": {},
    "purged": {},
    "shorn": {},
    "deleted": {},
}


def _ensure(queue: natslease.Queue) -> natslease.Queue:
    """Has the queue made, once JetStream is there again after a restart."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            queue.ensure()
        except natslease.Unavailable as error:  # noqa: PERF203
            if time.monotonic() > deadline:
                raise
            time.sleep(error.retry_after or 0.05)
        else:
            return queue


def _publish(queue: natslease.Queue, n: int) -> None:
    report = queue.publish([b"task"] * n)
    assert len(report.accepted) == n, report.failed[0].error


def _reserve(queue: Any, n: int, do: Callable[[Any], Any] = lambda answer: answer) -> list[Any]:
    leases: list[Any] = []
    while len(leases) < n:
        taken = do(queue.reserve(n - len(leases), wait=1.0, timeout=_PATIENCE))
        assert taken, f"{len(leases)} of {n} tasks"
        leases += taken
    return leases


def to_json(result: Run) -> dict[str, Any]:
    return asdict(result)


def from_json(value: dict[str, Any]) -> Run:
    calls = [Call(**one) for one in value.pop("calls")]
    before, after = Size(**value.pop("before")), Size(**value.pop("after"))
    return Run(calls=calls, before=before, after=after, **value)
