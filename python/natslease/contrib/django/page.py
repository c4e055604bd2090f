"""The page for staff: queues, workers and connections, and what an operator does with them.

Looking is GET, and changes nothing. Acting is POST, is asked for twice by the page, and is logged.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import wraps
from importlib.resources import files
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect, ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

import natslease
from natslease.fleet import Identity, WorkerInfo
from natslease.show import queue_rows

from . import _settings
from ._clients import clients
from ._errors import OUTAGE
from ._fleet import fleet_of, own_streams
from ._views import queue_view
from ._waiting import max_waiting, places, waiting

logger = logging.getLogger("natslease.django")

View = Callable[..., HttpResponseBase]

_ASSETS = {"page.css": "text/css", "page.js": "text/javascript"}
# Dead letters are counted up to here, and not each time that somebody's page asks.
_MOST_LETTERS = 100
_COUNTED_FOR = 15.0
# Beyond, counting would be a request each to the server.
_COUNTED_QUEUES = 50
_REQUEUED = 1000


def staff_only(view: View) -> View:
    """Others are sent to the login from the page, and get 403 from the rest."""

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        user = getattr(request, "user", None)
        if user is not None and user.is_active and user.is_staff:
            return view(request, *args, **kwargs)
        if view is _show and (user is None or not user.is_authenticated):
            return redirect_to_login(request.get_full_path())
        return JsonResponse({"error": "This is for staff."}, status=403)

    return checked


@never_cache
@ensure_csrf_cookie
@require_GET
def _show(request: HttpRequest) -> HttpResponse:
    return render(request, "natslease/page.html", {"aliases": list(clients)})


show = staff_only(_show)


@require_GET
def asset(request: HttpRequest, name: str) -> HttpResponse:
    """The page's style and script: it needs no static files."""
    if name not in _ASSETS:
        return HttpResponse(status=404)
    text = files(__package__).joinpath("assets").joinpath(name).read_text("utf-8")
    return HttpResponse(text, content_type=f"{_ASSETS[name]}; charset=utf-8")


@never_cache
@staff_only
@queue_view
@require_GET
def data(request: HttpRequest) -> JsonResponse:
    """What the page shows, as JSON. An outage is part of it, not an error."""
    alias = request.GET.get("alias", _settings.DEFAULT_ALIAS)
    if alias not in clients:
        return JsonResponse({"error": "There is no such alias."}, status=404)
    client = clients[alias]
    shown: dict[str, Any] = {"at": time.time(), "queues": [], "error": None}
    with waiting(request):
        try:
            rows = queue_rows(client, request.GET.get("pattern") or "*")
            own = own_streams(alias)
            shown["queues"] = [row for row in rows if row["stream"] not in own]
            _count_letters(alias, client, shown["queues"])
            shown["workers"] = [_describe(worker) for worker in fleet_of(alias).workers()]
        except natslease.Error as error:
            shown["error"] = f"{OUTAGE}: {error}"
    shown["process"] = _process(client)
    return JsonResponse(shown)


def _describe(worker: WorkerInfo) -> dict[str, Any]:
    return {
        "name": str(worker.worker),
        "status": worker.status,
        "last_seen": worker.last_seen,
        "holding": ", ".join(f"{n:,} of {stream}" for stream, n in worker.holding.items()),
        "done": worker.done,
        "rate": worker.rate,
        "stopped": worker.stopped,
    }


def _process(client: natslease.Client) -> dict[str, Any]:
    """This process's connection; costs no request."""
    stats = client.stats()
    return {
        "name": f"{os.uname().nodename} {os.getpid()}",
        "connected": stats.connected,
        "server": stats.server,
        "generation": stats.generation,
        "lost": stats.sessions_lost,
        "in_flight": stats.in_flight,
        "waiting": places.taken,
        "max_waiting": max_waiting(),
        "breaker": stats.breaker.state,
        "retry_after": stats.breaker.retry_after,
        "last_error": stats.last_error,
    }


_letters: dict[tuple[str, str, str], tuple[float, int]] = {}


def _count_letters(alias: str, client: natslease.Client, rows: list[dict[str, Any]]) -> None:
    """Adds how many dead letters there are; None where that is not known."""
    stream_of_letters = _settings.options_of(alias).get("DEAD_LETTERS")
    for i, row in enumerate(rows):
        row["dead"] = None
        if not stream_of_letters or not row["consumer"] or i >= _COUNTED_QUEUES:
            continue
        key = (alias, row["stream"], row["consumer"])
        counted_at, count = _letters.get(key, (0.0, 0))
        if time.monotonic() - counted_at > _COUNTED_FOR:
            queue = client.queue(
                row["stream"],
                subject=row["subject"],
                consumer=row["consumer"],
                dead_letters=stream_of_letters,
            )
            try:
                count = len(queue.dead_letters(_MOST_LETTERS))
            except natslease.QueueNotFound:  # nothing has died yet
                count = 0
            _letters[key] = (time.monotonic(), count)
        row["dead"] = count


@never_cache
@staff_only
@csrf_protect
@queue_view
@require_POST
def act(request: HttpRequest) -> JsonResponse:
    """Does what was asked for, and says what was done."""
    alias = request.POST.get("alias", _settings.DEFAULT_ALIAS)
    action, stream = request.POST.get("action", ""), request.POST.get("stream", "")
    worker = request.POST.get("worker", "")
    if alias in clients and action == "stop" and worker:
        return _stop(request, alias, worker)
    if alias not in clients or action not in _ACTIONS or not stream:
        return JsonResponse({"error": "There is no such action."}, status=400)
    if stream in own_streams(alias):
        return JsonResponse({"error": f"{stream} is natslease's own."}, status=400)
    try:
        queue = clients[alias].queue(
            stream,
            subject=request.POST.get("subject") or None,
            consumer=request.POST.get("consumer") or None,
            dead_letters=_settings.options_of(alias).get("DEAD_LETTERS"),
        )
        with waiting(request):
            done = _ACTIONS[action](queue)
    except natslease.ConfigError as error:
        return JsonResponse({"error": str(error)}, status=400)
    _letters.clear()
    logger.warning("%s by %s: %s: %s", action, request.user, stream, done)
    return JsonResponse({"done": done})


def _stop(request: HttpRequest, alias: str, name: str) -> JsonResponse:
    try:
        worker = Identity.parse(name)
    except ValueError as error:
        return JsonResponse({"error": str(error)}, status=400)
    with waiting(request):
        stopped = fleet_of(alias).stop(worker, f"by {request.user}")
    if not stopped:
        return JsonResponse({"error": f"There is no worker {name}."}, status=404)
    logger.warning("stop by %s: %s", request.user, name)
    return JsonResponse({"done": f"{name} is stopped: its next call is refused"})


def _purge(queue: natslease.Queue) -> str:
    return f"{queue.purge():,} tasks of {queue.stream} deleted"


def _requeue(queue: natslease.Queue) -> str:
    report = queue.requeue(queue.dead_letters(_REQUEUED))
    failed = f", {len(report.failed):,} failed" if report.failed else ""
    return f"{len(report.accepted):,} tasks of {queue.stream} requeued{failed}"


_ACTIONS: dict[str, Callable[[natslease.Queue], str]] = {"purge": _purge, "requeue": _requeue}
