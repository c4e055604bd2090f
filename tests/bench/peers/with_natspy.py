"""nats-py."""

from __future__ import annotations

from typing import Any

import nats

import sides

from .peer import Library
from .setting import Setting

# Without the last, a refused connection is tried again 60 times, 2 s apart.
ONCE = {"allow_reconnect": False, "max_reconnect_attempts": 1}


class _NatsPy(sides.NatsPy):
    def __init__(self, setting: Setting) -> None:
        self._timeout = setting.timeout

    async def open(self, url: str, stream: str) -> None:
        self._stream = stream
        options: dict[str, Any] = {}
        if self._timeout:
            options = {"connect_timeout": self._timeout, **ONCE}
        self._nc = await nats.connect(url, **options)
        self._js = self._nc.jetstream(**({"timeout": self._timeout} if self._timeout else {}))
        self._subscription = await self._js.pull_subscribe_bind(sides.CONSUMER, stream)


class Peer(Library):
    """Its coroutines."""

    def asynchronous(self) -> sides.AsyncSide:
        return _NatsPy(self.setting)
