"""nats-jetstream, on nats-core: the newer packages of the repository that nats-py is from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from nats.client import connect
from nats.jetstream import new

import sides

from .peer import Library
from .setting import Setting


class _Jetstream:
    def __init__(self, setting: Setting) -> None:
        self._timeout = setting.timeout

    async def open(self, url: str, stream: str) -> None:
        self._stream = stream
        options: dict[str, Any] = {}
        if self._timeout:
            options = {"timeout": self._timeout, "allow_reconnect": False}
        self._nc = await connect(url, **options)
        self._js = new(self._nc)
        self._consumer = await (await self._js.get_stream(stream)).get_consumer(sides.CONSUMER)

    async def reserve(self, n: int) -> Sequence[sides.Task]:
        batch = await self._consumer.fetch(max_messages=n, max_wait=sides.PATIENCE)
        return [message async for message in batch]

    def data(self, task: sides.Task) -> bytes:
        data: bytes = task.data
        return data

    async def ack(self, tasks: Sequence[sides.Task]) -> None:
        if len(tasks) == 1:
            await tasks[0].double_ack(timeout=sides.PATIENCE)
        else:
            await asyncio.gather(*(task.double_ack(timeout=sides.PATIENCE) for task in tasks))

    async def publish(self, payload: bytes, count: int) -> None:
        options = {"timeout": self._timeout} if self._timeout else {}
        if count == 1:
            await self._js.publish(self._stream, payload, **options)
            return
        # Its guide for who comes from nats-py: a bounded gather.
        for start in range(0, count, 1_000):
            few = min(1_000, count - start)
            await asyncio.gather(
                *(self._js.publish(self._stream, payload, **options) for _ in range(few))
            )

    async def close(self) -> None:
        await self._nc.close()


class Peer(Library):
    """Its coroutines."""

    def asynchronous(self) -> sides.AsyncSide:
        return _Jetstream(self.setting)
