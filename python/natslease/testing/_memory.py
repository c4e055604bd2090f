"""Clients of queues in memory: the Python API on a core that needs no server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from natslease import AsyncClient, Client, ConnectFailed, Error

from ._memorynative import Native

C = TypeVar("C", Client, AsyncClient)


class Memory:
    """Queues in memory, for tests that need no server: fast, and with a clock that can be moved.

    >>> memory = Memory()
    >>> queue = memory.client().queue("images")     # a natslease.Client; async_client() for asyncio
    >>> queue.ensure()

    What clients do is what they do with a server (both run the same tests), except that nothing is
    sent: no other process sees the queues, a forked child has a copy of them.
    """

    def __init__(self) -> None:
        self._native = Native()

    def client(self, **options: Any) -> Client:
        """A client of these queues.

        Args:
            options: as of ``natslease.Client``.
        """
        return self._attached(Client, options)

    def async_client(self, **options: Any) -> AsyncClient:
        """The same for asyncio."""
        return self._attached(AsyncClient, options)

    def _attached(self, kind: type[C], options: dict[str, Any]) -> C:
        load = staticmethod(lambda: self._native)
        in_memory: type[C] = type(kind.__name__, (kind,), {"__slots__": (), "_load": load})
        return in_memory(**options)

    def advance(self, seconds: float) -> None:
        """Moves the clock on: leases run out, delays and the window for duplicates pass."""
        self._native.advance(seconds)

    @contextmanager
    def failing(self, error: Error | None = None) -> Iterator[None]:
        """Has every call in the block fail.

        Args:
            error: what is raised; left out, a ``ConnectFailed`` as in an outage.
        """
        fake = self._native
        fake.failure = error or ConnectFailed("no server could be reached (nothing was sent)")
        try:
            yield
        finally:
            fake.failure = None
