"""Waiting for NATS inside a request: few threads at a time, without the database, and timed."""

from __future__ import annotations

import os
import sys
from threading import Lock
from time import perf_counter
from types import TracebackType
from typing import Any

from asgiref.sync import sync_to_async

import natslease

from . import _settings
from ._database import give_back_database

# Where the web server does not tell how many threads a process has for requests; under ASGI Django
# gives each request one of its own, and there is no bound.
_THREADS = 32
_FULL_RETRY_AFTER = 1.0
_SPENT = "natslease_seconds"


class Places:
    """How many of a process's threads may wait at the same time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken = 0

    @property
    def taken(self) -> int:
        return self._taken

    def take(self) -> None:
        """Takes a place.

        Raises:
            Busy: all are taken.
        """
        limit = max_waiting()
        with self._lock:
            if self._taken < limit:
                self._taken += 1
                return
        raise natslease.Busy(
            f"{limit} threads of this process wait for NATS already: NATSLEASE_HTTP['MAX_WAITING']",
            outcome="not_sent",
            operation="wait",
            retry_after=_FULL_RETRY_AFTER,
        )

    def leave(self) -> None:
        with self._lock:
            self._taken -= 1

    def reset(self) -> None:
        """In a forked child nobody waits, and the lock may be held by a thread that is not here."""
        self._lock = Lock()
        self._taken = 0


places = Places()
os.register_at_fork(after_in_child=places.reset)


class waiting:
    """Around a call to NATS in a view: ``with waiting(request): batch = queue.reserve(...)``.

    Takes a place among the threads that may wait, ends the transaction and gives the database
    connections back (``give_back_database``), and counts the time for ``Server-Timing``. In an
    async view ``async with``, which holds no thread and so needs no place.

    Raises:
        Busy: as many threads of this process wait as may.
        RuntimeError: the view is inside ``atomic``.
    """

    def __init__(self, request: Any = None) -> None:
        # That of Django REST framework wraps Django's.
        self._request = getattr(request, "_request", request)
        self._began = 0.0

    def __enter__(self) -> waiting:
        places.take()
        try:
            give_back_database()
        except BaseException:
            places.leave()
            raise
        self._began = perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        places.leave()
        self._count()

    async def __aenter__(self) -> waiting:
        await sync_to_async(give_back_database)()
        self._began = perf_counter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._count()

    def _count(self) -> None:
        if self._request is not None:
            spent = seconds_spent(self._request) or 0.0
            setattr(self._request, _SPENT, spent + perf_counter() - self._began)


def seconds_spent(request: Any) -> float | None:
    """How long a request has waited for NATS; None when it did not."""
    spent: float | None = getattr(getattr(request, "_request", request), _SPENT, None)
    return spent


def max_waiting() -> int:
    """How many threads of this process may wait."""
    limit = _settings.http("MAX_WAITING")
    if limit is None:
        limit = (_settings.http("THREADS") or _server_threads() or _THREADS) // 2
    return max(int(limit), 1)


_found_threads: int | None = None


def _server_threads() -> int:
    """How many threads gunicorn gives a process for requests; 0 when it is not gunicorn.

    It hands its configuration to nobody, but its worker is on the stack of each request.
    """
    global _found_threads
    if _found_threads is None:
        threads = 0
        frame: Any = sys._getframe()
        while frame is not None and not threads:
            if str(frame.f_globals.get("__name__")) == "gunicorn.workers.gthread":
                worker = frame.f_locals.get("self")
                threads = int(getattr(getattr(worker, "cfg", None), "threads", 0))
            frame = frame.f_back
        _found_threads = threads
    return _found_threads
