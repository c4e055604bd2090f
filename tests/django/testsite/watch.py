"""PostgreSQL is told which of its connections are held while their views wait for NATS: of these
the ``application_name`` is "waiting"."""

from __future__ import annotations

from functools import wraps
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection

import natslease


def install() -> None:
    """For the process of a server."""
    reserve, reserve_async = natslease.Queue.reserve, natslease.AsyncQueue.reserve

    @wraps(reserve)
    def watched(*args: Any, **options: Any) -> Any:
        _name("waiting")
        try:
            return reserve(*args, **options)
        finally:
            _name("")

    @wraps(reserve_async)
    async def watched_async(*args: Any, **options: Any) -> Any:
        await sync_to_async(_name)("waiting")
        try:
            return await reserve_async(*args, **options)
        finally:
            await sync_to_async(_name)("")

    natslease.Queue.reserve = watched  # type: ignore[method-assign]
    natslease.AsyncQueue.reserve = watched_async  # type: ignore[method-assign]


def _name(name: str) -> None:
    # Not by a cursor of Django, which would open a connection.
    if connection.vendor == "postgresql" and (held := connection.connection) is not None:
        held.execute(f"SET application_name = '{name}'")
