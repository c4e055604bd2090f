"""Every public operation that talks to the server, as it is called under a fault."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import natslease

# What one call publishes; on a disk it takes pages of its own.
ONE = b"x" * 10_000
MUCH = [b"x" * 50_000] * 20


@dataclass
class Subject:
    """What one call is made on: a client behind the fault, and things that were real before it."""

    client: Any
    work: Any  # the queue whose leases are settled
    stock: Any  # a queue that has tasks
    published: Any  # a queue that nothing else is published to
    failing: Any  # the queue whose dead letters the letters are
    other: Any  # a queue for what is large
    empty: Any  # a queue without tasks
    purged: Any  # queues for what destroys
    shorn: Any
    deleted: Any
    lonely: Any  # a client whose connection is its own
    leases: Iterator[Any]  # leases of `work`, or their ack subjects
    letters: Iterator[natslease.DeadLetter]
    timeout: float

    @property
    def wait(self) -> float:
        return self.timeout / 2


Operation = Callable[[Subject], Any]

OPERATIONS: dict[str, Operation] = {
    "client.ping": lambda s: s.client.ping(timeout=s.timeout),
    "client.reserve_any": lambda s: s.client.reserve_any(
        [s.stock, s.empty], 1, wait=s.wait, timeout=s.timeout
    ),
    "client.close": lambda s: s.lonely.close(timeout=s.timeout),
    "client.account": lambda s: s.client.account(timeout=s.timeout),
    "client.streams": lambda s: s.client.streams(timeout=s.timeout),
    "client.delete_stream": lambda s: s.client.delete_stream("nowhere", timeout=s.timeout),
    "queue.ensure": lambda s: s.work.ensure(timeout=s.timeout),
    "queue.info": lambda s: s.work.info(timeout=s.timeout),
    "queue.publish": lambda s: s.published.publish([ONE], timeout=s.timeout),
    "queue.publish, 1 MB": lambda s: s.other.publish(MUCH, timeout=s.timeout),
    "queue.reserve": lambda s: s.stock.reserve(1, timeout=s.timeout),
    "queue.reserve, wait": lambda s: s.empty.reserve(1, wait=s.wait, timeout=s.timeout),
    "queue.ack": lambda s: s.work.ack([next(s.leases)], timeout=s.timeout),
    "queue.nak": lambda s: s.work.nak([next(s.leases)], timeout=s.timeout),
    "queue.release": lambda s: s.work.release([next(s.leases)], timeout=s.timeout),
    "queue.extend": lambda s: s.work.extend([next(s.leases)], timeout=s.timeout),
    "queue.term": lambda s: s.work.term([next(s.leases)], "no use", timeout=s.timeout),
    "queue.dead_letters": lambda s: s.failing.dead_letters(timeout=s.timeout),
    "queue.requeue": lambda s: s.failing.requeue([next(s.letters)], timeout=s.timeout),
    "queue.discard": lambda s: s.failing.discard([next(s.letters)], timeout=s.timeout),
    "queue.consume": lambda s: first(s.stock.consume(1, wait=s.wait, timeout=s.timeout)),
    "queue.purge": lambda s: s.purged.purge(timeout=s.timeout),
    "queue.delete_consumer": lambda s: s.shorn.delete_consumer(timeout=s.timeout),
    "queue.delete": lambda s: s.deleted.delete(timeout=s.timeout),
}

# Of leases there are none where no connection could be opened: there the queue settles by the ack
# subjects that another process has reserved.
LEASE_OPERATIONS: dict[str, Operation] = {
    "lease.ack": lambda s: next(s.leases).ack(timeout=s.timeout),
    "lease.nak": lambda s: next(s.leases).nak(timeout=s.timeout),
    "lease.release": lambda s: next(s.leases).release(timeout=s.timeout),
    "lease.extend": lambda s: next(s.leases).extend(timeout=s.timeout),
    "lease.term": lambda s: next(s.leases).term("no use", timeout=s.timeout),
}

SETTLE = ("ack", "nak", "release", "extend", "term")


def settles(name: str) -> bool:
    return name.partition(".")[2] in SETTLE


def public_operations() -> set[str]:
    """All methods of clients, queues and leases that take a timeout."""
    found = set()
    for kind in (natslease.Client, natslease.Queue, natslease.Lease):
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_") and "timeout" in inspect.signature(method).parameters:
                found.add(f"{kind.__name__.lower()}.{name}")
    return found


def first(leases: Any) -> Any:
    """The first lease of a loop, which is left after it."""
    if inspect.isasyncgen(leases):
        return _first(leases)
    try:
        return next(leases)
    finally:
        leases.close()


async def _first(leases: Any) -> Any:
    try:
        return await anext(leases)
    finally:
        await leases.aclose()


def call(operation: Operation, subject: Subject) -> Verdict:
    """Makes a call of the synchronous API."""
    try:
        return verdict(operation(subject))
    except natslease.Error as error:
        return Verdict.of(error)


async def acall(operation: Operation, subject: Subject) -> Verdict:
    """Makes a call of the asynchronous API."""
    try:
        answer: Awaitable[Any] = operation(subject)
        return verdict(await answer)
    except natslease.Error as error:
        return Verdict.of(error)


@dataclass(frozen=True)
class Verdict:
    """How a call ended: ``ok``, or its error's type and outcome."""

    text: str
    explanation: str = ""

    @classmethod
    def of(cls, error: natslease.Error) -> Verdict:
        return cls(f"{type(error).__name__}/{error.outcome}", error.explain())


def verdict(answer: Any) -> Verdict:
    """That of the first item that failed, if the answer is a report of several."""
    if isinstance(answer, natslease.PublishReport):
        for result in answer.failed:
            assert result.error is not None
            return Verdict.of(result.error)
    elif isinstance(answer, list) and answer and isinstance(answer[0], natslease.SettleResult):
        for settled in answer:
            if settled.error is not None:
                return Verdict.of(settled.error)
    return Verdict("ok")
