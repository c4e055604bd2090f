"""The common interface: what the module of a peer has as its class Peer."""

from __future__ import annotations

import asyncio
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import sides

from .rows import ROWS
from .setting import Setting, handle


class Producer(Protocol):
    """Enqueues, as synchronous code calls it: a call returns when the broker has the tasks."""

    def publish(self, payload: bytes, count: int) -> None: ...
    def close(self) -> None: ...


class AsyncProducer(Protocol):
    """Enqueues, as a coroutine calls it."""

    async def publish(self, payload: bytes, count: int) -> None: ...
    async def close(self) -> None: ...


class Peer(ABC):
    """A library or a framework, in a process that has a Setting."""

    def __init__(self) -> None:
        self.setting = Setting.here()
        self.row = ROWS[self.setting.row]

    @abstractmethod
    def prepare(self) -> None:
        """Makes the queue."""

    @abstractmethod
    def left(self) -> int:
        """How many tasks of the queue are not acknowledged."""

    @abstractmethod
    def open(self) -> Producer:
        """Connects, for synchronous code."""

    async def open_in_loop(self) -> AsyncProducer:
        """Connects, for coroutines."""
        raise NotImplementedError

    @abstractmethod
    def work(self) -> None:
        """Becomes a worker, which ends by a signal."""


class Framework(Peer):
    """One whose worker is a program of its own, which calls setting.handle."""

    @abstractmethod
    def command(self) -> list[str]:
        """The program, one of those beside this interpreter, and its arguments."""

    def work(self) -> None:
        program, *arguments = self.command()
        os.execv(sys.executable, [sys.executable, "-m", program, *arguments])


class Library(Peer):
    """A client of NATS, whose tasks are taken in a loop; all have the same stream and consumer."""

    ack_wait = 30  # seconds, by default: the server's own, where a client has none

    def prepare(self) -> None:
        queue(self.setting, ack_wait=self.setting.lease or self.ack_wait).ensure()

    def left(self) -> int:
        return left(self.setting)

    @abstractmethod
    def asynchronous(self) -> sides.AsyncSide:
        """For coroutines, not connected."""

    def open(self) -> sides.Side:
        # Synchronous code that calls coroutines has a thread with their loop.
        return sides.InThread(self.asynchronous(), self.setting.url, self.setting.queue)

    async def open_in_loop(self) -> sides.AsyncSide:
        side = self.asynchronous()
        await side.open(self.setting.url, self.setting.queue)
        return side

    def work(self) -> None:
        if self.row.loop:
            asyncio.run(self._work_in_loop())
            return
        side, batch = self.open(), self.setting.batch
        while True:
            with suppress(TimeoutError):  # with some that is how a queue is empty
                if tasks := side.reserve(batch):
                    _handle(side, tasks)
                    side.ack(tasks)

    async def _work_in_loop(self) -> None:
        side, batch = await self.open_in_loop(), self.setting.batch
        while True:
            with suppress(TimeoutError, asyncio.TimeoutError):
                if tasks := await side.reserve(batch):
                    _handle(side, tasks)
                    await side.ack(tasks)


def _handle(side: sides.Side | sides.AsyncSide, tasks: Sequence[Any]) -> None:
    for task in tasks:
        handle(side.data(task).decode())


def queue(setting: Setting, **options: Any) -> Any:
    """The queue on NATS, as natslease sees it."""
    import natslease

    client = natslease.Client(setting.url, timeout=30.0, name=f"{setting.queue} setup")
    return client.queue(setting.queue, consumer=sides.CONSUMER, **options)


def left(setting: Setting) -> int:
    """How many tasks of that queue are not acknowledged."""
    info = queue(setting).info()
    return int(info.num_pending + info.num_ack_pending)
