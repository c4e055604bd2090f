"""natsrpy (Rust)."""

from __future__ import annotations

import natsrpy

import sides

from .peer import Library
from .setting import Setting


class _Natsrpy(sides.Natsrpy):
    def __init__(self, setting: Setting) -> None:
        self._timeout = setting.timeout

    async def open(self, url: str, stream: str) -> None:
        self._stream = stream
        limits = {"connection_timeout": self._timeout, "request_timeout": self._timeout}
        self._nc = natsrpy.Nats([url], **(limits if self._timeout else {}))
        await self._nc.startup()
        limits = {"timeout": self._timeout, "ack_timeout": self._timeout}
        self._js = await self._nc.jetstream(**(limits if self._timeout else {}))
        queue = await self._js.streams.get(stream)
        self._consumer = await queue.consumers.get_pull(sides.CONSUMER)


class Peer(Library):
    """Its coroutines."""

    def asynchronous(self) -> sides.AsyncSide:
        return _Natsrpy(self.setting)
