"""Plain views, sync and async, and the health probes."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection, transaction
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory

import natslease
from natslease.contrib.django import (
    ClientGone,
    _waiting,
    clients,
    error_response,
    give_back_database,
    queue_view,
    reserve,
    waiting,
)
from natslease.contrib.django.health import health
from natslease.testing import Server
from testsite.models import Result

pytestmark = pytest.mark.django_db(transaction=True)


def get(client: Client, path: str) -> Any:
    """The answer of a URL, by the synchronous or the asynchronous handler."""
    return client.get(path)


def get_async(path: str) -> Any:
    async def ask() -> Any:
        return await AsyncClient().get(path)

    return asyncio.run(ask())


@pytest.fixture(params=["sync view", "async view", "sync view under ASGI", "async view under ASGI"])
def ask(request: pytest.FixtureRequest, client: Client) -> Any:
    """Asks one of the two views of tasks, by one of the two handlers."""
    path = "/plain/async/" if request.param.startswith("async") else "/plain/tasks/"

    def ask(query: str = "") -> Any:
        return get_async(path + query) if "ASGI" in request.param else client.get(path + query)

    return ask


def test_tasks(ask: Any, images: natslease.Queue) -> None:
    images.publish([b"a", b"b"])
    answer = ask()
    assert (answer.status_code, answer.json()) == (200, {"tasks": ["a", "b"]})
    assert answer["Server-Timing"].startswith("queue;dur=")
    assert ask("?wait=0.05").json() == {"tasks": []}


def test_an_outage(ask: Any, images: natslease.Queue, nats_server: Server) -> None:
    nats_server.kill()
    for _ in range(4):
        answer = ask()
        assert answer.status_code == 503
        assert int(answer["Retry-After"]) >= 1
        assert answer.json()["error"] == "Task queue temporarily unavailable"


def test_a_transaction_that_would_last_as_long_as_the_wait() -> None:
    Result.objects.create(task="x", text="")
    with transaction.atomic():
        with pytest.raises(RuntimeError, match="inside a transaction of the database 'default'"):
            give_back_database()
        assert Result.objects.count() == 1
        with pytest.raises(RuntimeError), waiting():
            pass
    assert _waiting.places.taken == 0


@pytest.mark.django_db(transaction=False)
def test_in_a_test_case_the_connection_stays(images: natslease.Queue) -> None:
    Result.objects.create(task="x", text="")
    with waiting():
        images.reserve(1)
    assert Result.objects.count() == 1


def test_an_open_transaction_without_autocommit_is_committed() -> None:
    connection.set_autocommit(False)
    Result.objects.create(task="x", text="")
    give_back_database()
    assert connection.connection is None
    assert Result.objects.count() == 1


def test_errors_by_whose_fault_it_is() -> None:
    def status(error: natslease.Error) -> Any:
        answered = error_response(error)
        return answered and (answered[0], answered[2].get("Retry-After"))

    assert status(natslease.Saturated("", retry_after=2.3)) == (503, "3")
    assert status(natslease.Saturated("", retry_after=0.1)) == (503, "1")
    assert status(natslease.DeadlineExceeded("", retry_after=1.0)) == (503, "1")
    assert status(natslease.StorageFull("", retry_after=1.0)) == (503, "1")
    assert status(natslease.ServerError("", retry_after=1.0)) == (503, "1")
    assert status(natslease.AuthenticationFailed("")) == (503, "30")
    assert status(natslease.PermissionDenied("")) == (503, "30")
    assert status(natslease.InvalidLease("")) == (400, None)
    assert status(natslease.QueueNotFound("")) == (404, None)
    assert status(natslease.Superseded("")) == (409, None)
    assert status(natslease.LeaseGone("")) == (410, None)
    assert status(natslease.ConfigError("")) is None
    # Whatever error there is: a status, or one that says that the site is wrong.
    for kind in natslease.Error.__subclasses__():
        answered = error_response(kind(""))
        assert answered is None or 400 <= answered[0] <= 503


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (natslease.ConnectionLost(""), 0.5, 3.0),
        (natslease.CircuitOpen("", retry_after=1.5), 1.5, 3.5),
    ],
)
def test_clients_whose_calls_fail_together_come_back_one_after_another(
    error: natslease.Error, least: float, most: float
) -> None:
    answers = [error_response(error) for _ in range(100)]
    waits = [answer[1]["retry_after"] for answer in answers if answer]
    assert len(set(waits)) > 50
    assert all(least <= wait <= most for wait in waits)
    headers = {int(answer[2]["Retry-After"]) for answer in answers if answer}
    assert headers == set(range(math.ceil(least), math.ceil(most) + 1))


def test_a_mistake_of_the_site_is_not_hidden(images: natslease.Queue) -> None:
    @queue_view
    def view(request: Any) -> HttpResponse:
        images.reserve(0)
        return HttpResponse()

    with pytest.raises(natslease.ConfigError):
        view(RequestFactory().get("/"))


def test_half_of_the_threads_may_wait(site: Any) -> None:
    assert _waiting.max_waiting() == 16
    for options, most in (
        ({"THREADS": 8}, 4),
        ({"THREADS": 1}, 1),
        ({"THREADS": 8, "MAX_WAITING": 7}, 7),
    ):
        site.NATSLEASE_HTTP = options
        assert _waiting.max_waiting() == most


def test_places_are_never_more_than_there_are_and_all_come_back(site: Any) -> None:
    site.NATSLEASE_HTTP = {"MAX_WAITING": 3}
    most, lock = [0], threading.Lock()
    started = threading.Barrier(12)

    def turn() -> None:
        with waiting(), lock:
            most[0] = max(most[0], _waiting.places.taken)

    def work() -> None:
        started.wait()
        for _ in range(200):
            with suppress(natslease.Busy):
                turn()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most[0] <= 3
    assert _waiting.places.taken == 0


def test_tasks_for_a_client_that_has_hung_up_are_released(images: natslease.Queue) -> None:
    images.publish([b"a", b"b"])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request = RequestFactory().get("/")
        request.META["gunicorn.socket"] = ours
        (lease,) = reserve(request, images, 1, wait=5)
        lease.release()
        theirs.close()
        with pytest.raises(ClientGone):
            reserve(request, images, 2, wait=5)
        with pytest.raises(ClientGone):
            reserve(request, [images], 2, wait=5)
    assert len(images.reserve(2, wait=5)) == 2


def test_several_queues(images: natslease.Queue, site: Any) -> None:
    images.publish([b"a"])
    other = clients["default"].queue("other")
    other.ensure()
    other.publish([b"b"])
    batch = reserve(RequestFactory().get("/"), [images, other], 5, wait=1)
    assert {lease.queue.stream for lease in batch} <= {"images", "other"}
    assert reserve(RequestFactory().get("/"), [], 5) == []


def test_the_wait_is_cut(images: natslease.Queue, site: Any) -> None:
    site.NATSLEASE_HTTP = {"MAX_WAIT": 0.05}
    # Longer than the client's timeout: it would be refused.
    assert reserve(RequestFactory().get("/"), images, 1, wait=1000, timeout=2) == []


def test_health(site: Any, nats_server: Server) -> None:
    request = RequestFactory().get("/")
    answer = health(request)
    assert answer.status_code == 200
    assert b'"status": "ok"' in answer.content
    nats_server.kill()
    for _ in range(4):
        answer = health(request)
        assert answer.status_code == 503
    assert b'"breaker": "open"' in answer.content


def test_health_of_a_frozen_server_is_known_in_time(site: Any, nats_server: Server) -> None:
    health(RequestFactory().get("/"))
    with nats_server.frozen():
        assert health(RequestFactory().get("/"), timeout=0.2).status_code == 503
