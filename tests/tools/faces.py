"""The synchronous and the asynchronous API behind one face, so that every test is run on both."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import natslease
from natslease import fleet
from natslease.testing import Memory

_AWAITED = (
    natslease.AsyncClient,
    natslease.AsyncLease,
    natslease.AsyncQueue,
    fleet.AsyncFleet,
    fleet.AsyncWorker,
)

FACES = ("sync", "async")
# The same on queues in memory.
IN_MEMORY = ("sync in memory", "async in memory")


def new_event_loop(kind: str = os.environ.get("NATSLEASE_LOOP", "asyncio")) -> Any:
    """An event loop of asyncio's or of uvloop's."""
    return importlib.import_module(kind).new_event_loop()


class Face:
    """Makes clients. Those of ``AsyncClient`` are wrapped: each call is run in an event loop.

    ``NATSLEASE_LOOP=uvloop`` makes that one of uvloop's.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.memory = Memory() if name in IN_MEMORY else None
        self._loop = new_event_loop() if name.startswith("async") else None
        self._clients: list[Any] = []

    def client(self, *servers: Any, **options: Any) -> Any:
        kind: Callable[..., Any]
        if self.memory is None:
            kind = natslease.Client if self._loop is None else natslease.AsyncClient
        else:
            kind = self.memory.client if self._loop is None else self.memory.async_client
        client = self.wrap(kind(*servers, **options))
        self._clients.append(client)
        return client

    def fleet(self, client: Any, **options: Any) -> Any:
        kind = fleet.Fleet if self._loop is None else fleet.AsyncFleet
        return self.wrap(kind(unwrap(client), **options))

    def close(self) -> None:
        for client in self._clients:
            client.close()
        if self._loop is not None:
            self._loop.close()

    def wrap(self, value: Any) -> Any:
        if self._loop is None:
            return value
        if inspect.isawaitable(value):
            return self.wrap(self._run(value))
        if inspect.isasyncgen(value):
            return self._iterate(value)
        if isinstance(value, natslease.LeaseBatch):
            leases: natslease.LeaseBatch[Any] = type(value)(map(self.wrap, value))
            leases.retry_after = value.retry_after
            if isinstance(value, natslease.AnyBatch) and isinstance(leases, natslease.AnyBatch):
                leases.missing, leases.errors = value.missing, value.errors
            return leases
        if isinstance(value, _AWAITED):
            return Awaited(value, self)
        return value

    def _run(self, awaitable: Awaitable[Any]) -> Any:
        assert self._loop is not None

        async def wait() -> Any:
            return await awaitable

        return self._loop.run_until_complete(wait())

    def _iterate(self, generator: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    item = self._run(generator.__anext__())
                except StopAsyncIteration:
                    return
                yield self.wrap(item)
        finally:
            self._run(generator.aclose())


class Awaited:
    """An object of the asynchronous API whose methods wait for what they return."""

    def __init__(self, value: Any, face: Face) -> None:
        self.value = value
        self.face = face

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.value, name)
        return self._call(found) if inspect.ismethod(found) else self.face.wrap(found)

    def _call(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            return self.face.wrap(method(*map(unwrap, args), **options))

        return call

    def __enter__(self) -> Any:
        return self.face.wrap(self.value.__aenter__())

    def __exit__(self, *error: Any) -> Any:
        return self.face.wrap(self.value.__aexit__(*error))

    def __repr__(self) -> str:
        return repr(self.value)


def unwrap(value: Any) -> Any:
    if isinstance(value, Awaited):
        return value.value
    if isinstance(value, list):
        return [unwrap(item) for item in value]
    return value


@contextmanager
def opened(name: str) -> Iterator[Face]:
    face = Face(name)
    try:
        yield face
    finally:
        face.close()
