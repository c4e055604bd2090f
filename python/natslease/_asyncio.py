"""The asynchronous API: the same operations, awaited.

An event loop learns from a file descriptor which operations are done: no thread waits for them, and
nothing polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet, ref

from . import _wire
from ._client import ClientBase
from ._errors import Error
from ._lease import AnyBatch, LeaseBase, LeaseBatch, note, reason_of
from ._native import Native, exclusively
from ._operation import Operation, Running
from ._queue import Consuming, QueueBase

if TYPE_CHECKING:
    from types import TracebackType

    from ._operation import Call
    from ._types import (
        AccountInfo,
        Conflict,
        DeadLetter,
        Message,
        PublishReport,
        QueueInfo,
        SettleResult,
        StreamList,
    )

T = TypeVar("T")

# Where a loop keeps its notifier: it lives as long as the loop.
_ATTRIBUTE = "_natslease_notifier"
# How many operations a loop is woken for at a time: it has others to look after, too.
_AT_ONCE = 32

_notifiers: WeakSet[_Notifier] = WeakSet()


class _Notifier:
    """Wakes the operations of one event loop."""

    __slots__ = ("__weakref__", "_loop", "_waiting", "native", "number")

    def __init__(self, native: Native, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._loop = ref(loop)
        self.native = native
        self.number = next(native.numbers)
        answer = native.notifier_open(self.number)
        if answer[0] == _wire.ERROR:
            raise _wire.read_error(answer)
        loop.add_reader(_wire.read_number(answer), self._on_ready)

    def _on_ready(self) -> None:
        try:
            # What is left makes the descriptor readable again.
            for ticket in _wire.read_numbers(self.native.notifier_take(self.number, _AT_ONCE)):
                self._wake(ticket)
        except BaseException:
            # Of a signal handler: who waits looks for himself.
            for ticket in list(self._waiting):
                self._wake(ticket)
            raise

    def _wake(self, ticket: int) -> None:
        future = self._waiting.pop(ticket, None)
        if future is not None and not future.done():
            future.set_result(None)

    def expect(self, ticket: int, future: asyncio.Future[None]) -> None:
        self._waiting[ticket] = future

    def forget(self, ticket: int) -> None:
        self._waiting.pop(ticket, None)

    def is_orphan(self) -> bool:
        """Whether its loop runs no more."""
        loop = self._loop()
        return loop is None or loop.is_closed()

    def close(self) -> None:
        """Ends it. The loop is gone, and with it whoever waited."""
        number, self.number = self.number, 0
        if number and self.native.is_usable():
            for ticket in self._waiting:
                self.native.cancel(ticket)
            self.native.notifier_close(number)

    __del__ = close


def _notifier(native: Native, loop: asyncio.AbstractEventLoop) -> _Notifier:
    notifier: _Notifier | None = getattr(loop, _ATTRIBUTE, None)
    if notifier is None or notifier.native is not native:
        notifier = _Notifier(native, loop)
        setattr(loop, _ATTRIBUTE, notifier)
        with exclusively():
            # A loop that was closed during calls is part of a cycle with them, which the garbage
            # collector may find late.
            for orphan in [n for n in _notifiers if n.is_orphan()]:
                _notifiers.discard(orphan)
                orphan.close()
            _notifiers.add(notifier)
    return notifier


def _start(running: Running[Any]) -> None:
    operation = running.operation
    loop = asyncio.get_running_loop()
    notifier = _notifier(operation.native, loop)
    waiter = loop.create_future()
    running.notifier, running.waiter = notifier, waiter
    notifier.expect(running.ticket, waiter)
    running.answer = operation.start(running.ticket, 0, notifier.number)


async def _finish(running: Running[T]) -> T:
    notifier, native = running.notifier, running.operation.native
    assert running.answer is not None
    if running.answer[0] == _wire.PENDING:
        await running.waiter
        running.answer = native.wait(running.ticket, 0)
        while running.answer[0] == _wire.PENDING:  # woken without need
            running.waiter = asyncio.get_running_loop().create_future()
            notifier.expect(running.ticket, running.waiter)
            await running.waiter
            running.answer = native.wait(running.ticket, 0)
    else:
        notifier.forget(running.ticket)
    return running.operation.conclude(running.ticket, running.answer)


def _abandon(running: Running[Any]) -> None:
    if running.notifier is not None:
        running.notifier.forget(running.ticket)
    running.abandon()


async def run(operation: Operation[T]) -> T:
    """Runs an operation. When it is cancelled, what it takes is given back."""
    running = Running(operation)
    try:
        _start(running)
        return await _finish(running)
    except BaseException:
        _abandon(running)
        raise


async def run_call(call: Call[T]) -> T:
    """Runs a call that needs several operations."""
    running: Running[Any] | None = None
    outcome: Any = None
    try:
        while True:
            step = call.send(outcome)
            if isinstance(step, Operation):
                outcome = running = Running(step)
                _start(running)
                continue
            try:
                outcome = await _finish(step)
            except Error as error:
                outcome = error
    except StopIteration as stop:
        value: T = stop.value
        return value
    except BaseException:
        if running is not None:
            _abandon(running)
        raise


class AsyncLease(LeaseBase["AsyncQueue"]):
    """One delivery of one task to one taker; as ``Lease``, awaited.

    As an asynchronous context manager it is acknowledged at the end of the block. When the block
    raises, it is NAKed; when it is cancelled, it is released.
    """

    __slots__ = ()

    async def ack(self, *, timeout: float | None = None) -> SettleResult:
        """As ``Lease.ack``. When it is cancelled, the lease may be settled or not."""
        return await run(self._queue._settle_one("ack", self, timeout))

    async def nak(
        self, *, delay: float = 0.0, reason: str = "", timeout: float | None = None
    ) -> SettleResult:
        """As ``Lease.nak``."""
        return await run(self._queue._settle_one("nak", self, timeout, delay=delay, reason=reason))

    async def release(self, *, timeout: float | None = None) -> SettleResult:
        """As ``Lease.release``."""
        return await run(self._queue._settle_one("release", self, timeout))

    async def extend(self, *, timeout: float | None = None) -> SettleResult:
        """As ``Lease.extend``."""
        return await run(self._queue._settle_one("extend", self, timeout))

    async def term(self, reason: str = "", *, timeout: float | None = None) -> SettleResult:
        """As ``Lease.term``."""
        return await run(self._queue._settle_one("term", self, timeout, reason=reason))

    def keep(self, *, max_hold: float = 3600.0, heartbeat: float | None = None) -> None:
        """As ``Lease.keep``."""
        self._queue.keep([self], max_hold=max_hold, heartbeat=heartbeat)

    def beat(self) -> None:
        """As ``Lease.beat``. Nothing to be awaited."""
        self._queue.beat([self])

    async def __aenter__(self) -> AsyncLease:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.settled:
            return
        if error is None:
            await self.ack()
        elif isinstance(error, Exception):
            try:
                await run(self._queue._settle_one("nak", self, None, reason=reason_of(error)))
            except Error as failure:
                note(error, failure)
        else:
            # Whoever was cancelled does not wait.
            self._queue._detach("release", [self])


class AsyncQueue(QueueBase[AsyncLease]):
    """One JetStream stream, a subject and a durable pull consumer; as ``Queue``, awaited."""

    __slots__ = ()

    _lease = AsyncLease

    async def ensure(
        self,
        *,
        conflict: Conflict = "keep",
        timeout: float | None = None,
    ) -> QueueInfo:
        """As ``Queue.ensure``."""
        return await run(self._ensure(conflict, timeout))

    async def info(self, *, timeout: float | None = None) -> QueueInfo:
        """As ``Queue.info``."""
        return await run(self._info(timeout))

    async def purge(self, *, timeout: float | None = None) -> int:
        """As ``Queue.purge``."""
        return await run(self._purge(timeout))

    async def delete(self, *, timeout: float | None = None) -> bool:
        """As ``Queue.delete``."""
        return await run(self._delete(timeout))

    async def delete_consumer(self, *, timeout: float | None = None) -> bool:
        """As ``Queue.delete_consumer``."""
        return await run(self._delete_consumer(timeout))

    async def publish(
        self,
        messages: Iterable[bytes | Message],
        *,
        timeout: float | None = None,
    ) -> PublishReport:
        """As ``Queue.publish``."""
        return await run_call(self._publish(messages, timeout))

    async def reserve(
        self,
        n: int = 1,
        *,
        wait: float = 0.0,
        timeout: float | None = None,
    ) -> LeaseBatch[AsyncLease]:
        """As ``Queue.reserve``. When it is cancelled, its tasks are given back."""
        return await run(self._reserve(n, wait, timeout))

    async def ack(
        self,
        leases: Iterable[AsyncLease | str],
        *,
        timeout: float | None = None,
    ) -> list[SettleResult]:
        """As ``Queue.ack``."""
        return await run(self._settle("ack", leases, timeout))

    async def nak(
        self,
        leases: Iterable[AsyncLease | str],
        *,
        delay: float = 0.0,
        reason: str = "",
        timeout: float | None = None,
    ) -> list[SettleResult]:
        """As ``Queue.nak``."""
        return await run(self._settle("nak", leases, timeout, delay=delay, reason=reason))

    async def release(
        self,
        leases: Iterable[AsyncLease | str],
        *,
        timeout: float | None = None,
    ) -> list[SettleResult]:
        """As ``Queue.release``."""
        return await run(self._settle("release", leases, timeout))

    async def extend(
        self,
        leases: Iterable[AsyncLease | str],
        *,
        timeout: float | None = None,
    ) -> list[SettleResult]:
        """As ``Queue.extend``."""
        return await run(self._settle("extend", leases, timeout))

    async def term(
        self,
        leases: Iterable[AsyncLease | str],
        reason: str = "",
        *,
        timeout: float | None = None,
    ) -> list[SettleResult]:
        """As ``Queue.term``."""
        return await run(self._settle("term", leases, timeout, reason=reason))

    async def dead_letters(
        self, limit: int = 100, *, timeout: float | None = None
    ) -> list[DeadLetter]:
        """As ``Queue.dead_letters``."""
        return await run(self._dead_letters(limit, timeout))

    async def requeue(
        self, letters: Iterable[DeadLetter], *, timeout: float | None = None
    ) -> PublishReport:
        """As ``Queue.requeue``."""
        return await run(self._requeue(letters, timeout))

    async def discard(self, letters: Iterable[DeadLetter], *, timeout: float | None = None) -> int:
        """As ``Queue.discard``."""
        return await run(self._discard(letters, timeout))

    async def consume(
        self,
        n: int = 1,
        *,
        wait: float = 30.0,
        max_hold: float = 3600.0,
        timeout: float | None = None,
    ) -> AsyncIterator[AsyncLease]:
        """As ``Queue.consume``."""
        while True:
            batch = await self.reserve(n, wait=wait, timeout=timeout)
            if not batch:
                await asyncio.sleep(batch.retry_after if wait == 0 else 0)
                continue
            with Consuming(self, batch, max_hold) as leases:
                for lease in leases:
                    yield lease


class AsyncClient(ClientBase):
    """The way to the queues of one NATS system, for asyncio; as ``Client``, awaited.

    It may be used by several event loops, each in its own thread. As an asynchronous context
    manager it is closed at the end of the block.
    """

    __slots__ = ()

    def queue(
        self,
        stream: str,
        *,
        subject: str | None = None,
        consumer: str | None = None,
        dead_letters: str | None = None,
        ack_wait: float | None = None,
        max_deliver: int | None = None,
        max_ack_pending: int | None = None,
        max_age: float | None = None,
        max_bytes: int | None = None,
        max_messages: int | None = None,
        discard: str | None = None,
        duplicate_window: float | None = None,
        retention: str | None = None,
        storage: str | None = None,
        replicas: int | None = None,
    ) -> AsyncQueue:
        """As ``Client.queue``. Nothing is sent, and nothing to be awaited."""
        options = {name: value for name, value in locals().items() if name != "self"}
        return self._queue(AsyncQueue, options)

    async def reserve_any(
        self,
        queues: Iterable[AsyncQueue],
        n: int = 1,
        *,
        wait: float = 0.0,
        timeout: float | None = None,
    ) -> AnyBatch[AsyncLease]:
        """As ``Client.reserve_any``. When it is cancelled, its tasks are given back."""
        return await run(self._reserve_any(queues, n, wait, timeout))

    async def account(self, *, timeout: float | None = None) -> AccountInfo:
        """As ``Client.account``."""
        return await run(self._account(timeout))

    async def streams(
        self,
        pattern: str = "*",
        *,
        subject: str | None = None,
        consumers: bool = False,
        timeout: float | None = None,
    ) -> StreamList:
        """As ``Client.streams``."""
        return await run(self._streams(pattern, subject, consumers, timeout))

    async def delete_stream(self, name: str, *, timeout: float | None = None) -> bool:
        """As ``Client.delete_stream``."""
        return await run(self._delete_stream(name, timeout))

    async def ping(self, *, timeout: float | None = None) -> float:
        """As ``Client.ping``."""
        return await run(self._ping(timeout))

    async def close(self, *, timeout: float | None = None) -> None:
        """As ``Client.close``."""
        operation = self._close(timeout)
        if operation is not None:
            await run(operation)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
