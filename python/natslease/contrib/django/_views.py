"""Views that use a queue."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django.db import connections, transaction
from django.http import HttpResponseBase, JsonResponse

import natslease

from . import _settings
from ._clients import clients
from ._errors import error_response
from ._waiting import seconds_spent, waiting
from .asgi import HUNG_UP

if TYPE_CHECKING:
    from natslease import Lease, LeaseBatch, Queue

V = TypeVar("V", bound=Callable[..., Any])

GONE_STATUS = 499


class ClientGone(Exception):
    """The HTTP client has closed its connection: nobody would read the answer."""


def reserve(
    request: Any,
    queues: Queue | Iterable[Queue],
    n: int,
    *,
    wait: float = 0.0,
    timeout: float | None = None,
    alias: str = _settings.DEFAULT_ALIAS,
) -> LeaseBatch[Lease]:
    """``Queue.reserve``, or for several queues ``Client.reserve_any`` of an alias, in a view.

    The database is given back and one of the places for waiting taken, see ``waiting``. Tasks that
    came for an HTTP client which has hung up meanwhile are released, where that can be known: under
    gunicorn without TLS, and under ASGI with ``asgi.notice_disconnects``.

    Args:
        wait: seconds; cut to ``NATSLEASE_HTTP["MAX_WAIT"]``.

    Raises:
        ClientGone: it has hung up.
        Error: as ``Queue.reserve``, ``Client.reserve_any`` and ``waiting``.
    """
    wait = min(wait, _settings.http("MAX_WAIT"))
    several = [queues] if isinstance(queues, natslease.Queue) else list(queues)
    batch: LeaseBatch[Lease] = natslease.LeaseBatch()
    batch.retry_after = 0.0
    if not several:
        return batch
    with waiting(request):
        if several[0] is queues:
            batch = several[0].reserve(n, wait=wait, timeout=timeout)
        else:
            batch = clients[alias].reserve_any(several, n, wait=wait, timeout=timeout)
        if batch and has_hung_up(request):
            _release(batch)
            raise ClientGone
    return batch


def _release(batch: Iterable[Lease]) -> None:
    by_queue: dict[Queue, list[Lease]] = {}
    for lease in batch:
        by_queue.setdefault(lease.queue, []).append(lease)
    for queue, leases in by_queue.items():
        queue.release(leases)


def has_hung_up(request: Any) -> bool:
    """Whether the HTTP client is known to have closed its connection."""
    if getattr(request, "scope", {}).get(HUNG_UP):
        return True
    connection = request.META.get("gunicorn.socket")
    if not isinstance(connection, socket.socket) or isinstance(connection, ssl.SSLSocket):
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def queue_view(view: V) -> V:
    """Decorates a view, sync or async, that uses a queue.

    It is not wrapped in a transaction by ``ATOMIC_REQUESTS``; an outage is answered 503 with
    ``Retry-After`` (see ``error_response``); ``Server-Timing`` tells the queue's part of the time.
    Wait for NATS inside ``waiting(request)``.

    A class-based view: ``@method_decorator(queue_view, name="dispatch")``.
    """
    if iscoroutinefunction(view):

        async def answer_async(request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
            awaited = cast("Callable[..., Awaitable[HttpResponseBase]]", view)
            try:
                response = await awaited(request, *args, **kwargs)
            except (natslease.Error, ClientGone) as error:
                response = _answer(error)
            return add_timing(request, response)

        return cast("V", make_non_atomic(wraps(view)(answer_async)))

    def answer(request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            response = view(request, *args, **kwargs)
        except (natslease.Error, ClientGone) as error:
            response = _answer(error)
        return add_timing(request, response)

    return cast("V", make_non_atomic(wraps(view)(answer)))


def _answer(error: natslease.Error | ClientGone) -> HttpResponseBase:
    if isinstance(error, ClientGone):
        return JsonResponse({}, status=GONE_STATUS)
    answered = error_response(error)
    if answered is None:
        raise error
    status, body, headers = answered
    return JsonResponse(body, status=status, headers=headers)


def make_non_atomic(view: V) -> V:
    """Exempts a view from ``ATOMIC_REQUESTS`` of every database."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def add_timing(request: Any, response: HttpResponseBase) -> HttpResponseBase:
    """Adds the time that the request has waited for NATS, in milliseconds, as ``queue``."""
    spent = seconds_spent(request)
    if spent is not None:
        before = response.headers.get("Server-Timing")
        own = f"queue;dur={spent * 1e3:.2f}"
        response.headers["Server-Timing"] = f"{before}, {own}" if before else own
    return response
