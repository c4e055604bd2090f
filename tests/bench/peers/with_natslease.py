"""natslease."""

from __future__ import annotations

from typing import Any

import natslease
import sides

from .peer import Library
from .setting import Setting


class _Synchronous(sides.Natslease):
    def __init__(self, setting: Setting) -> None:
        options: dict[str, Any] = {"timeout": setting.timeout} if setting.timeout else {}
        self._client = natslease.Client(setting.url, **options)
        self._queue = self._client.queue(setting.queue, consumer=sides.CONSUMER)

    def publish(self, payload: bytes, count: int) -> None:
        for item in self._queue.publish([payload] * count).failed:
            raise item.error or RuntimeError("not published")


class Peer(Library):
    """A client of its own, without a loop, and another for coroutines."""

    ack_wait = 60

    def asynchronous(self) -> sides.AsyncSide:
        return sides.AsyncNatslease()

    def open(self) -> sides.Side:
        return _Synchronous(self.setting)
