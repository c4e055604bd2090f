"""A real nats-py connection, for code that still reaches into one. Deprecated."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from . import _names

if TYPE_CHECKING:
    from nats import NATS

_CLOSE_TIMEOUT = 1.0


async def get_connection(
    nats_url: str, *, timeout: float = _names.CONNECT_TIMEOUT
) -> tuple[Any, Any]:
    """Opens a connection of nats-py: ``(nc, js)``. Deprecated; it needs nats-py.

    It returns by its timeout whatever the server does, and never reconnects. The caller closes it.

    Raises:
        TimeoutError, OSError, nats.errors.Error: there is no connection.
    """
    import nats

    nc: NATS = nats.NATS()
    try:
        # nats-py repeats a refused connect 60 times, 2 s apart, whatever allow_reconnect says.
        await asyncio.wait_for(
            nc.connect(
                nats_url,
                connect_timeout=timeout,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                error_cb=_silent,
            ),
            timeout,
        )
    except BaseException:
        await close_connection(nc)
        raise
    return nc, nc.jetstream(timeout=_names.JETSTREAM_TIMEOUT)


async def _silent(_: Exception) -> None:
    """What goes wrong is raised; nats-py would log it with a traceback besides."""


async def close_connection(nc: Any) -> None:
    """Closes a connection of nats-py, in a second at most, and drops it otherwise."""
    try:
        await asyncio.wait_for(nc.close(), _CLOSE_TIMEOUT)
    except Exception:  # noqa: BLE001 (whatever nats-py raises, it is to be gone)
        transport = getattr(nc, "_transport", None)
        if transport is not None:
            with contextlib.suppress(Exception):
                transport.close()


class Lazy:
    """Stands for an object of nats-py that is made when one of its coroutines is first awaited."""

    def __init__(self, open_: Callable[[], Awaitable[Any]], opened: Callable[[], Any]) -> None:
        self._open = open_
        self._opened = opened

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        there = self._opened()
        if there is not None:
            return getattr(there, name)
        if name in ("is_connected", "is_connecting", "is_reconnecting", "is_draining"):
            return False
        if name == "is_closed":
            return True

        async def call(*arguments: Any, **options: Any) -> Any:
            result = getattr(await self._open(), name)(*arguments, **options)
            return await result if asyncio.iscoroutine(result) else result

        call.__name__ = name
        return call
