"""Queue views of Django REST framework, in the test's process."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.db import connection
from django.test import Client

import natslease
from natslease.contrib.django import _waiting
from natslease.testing import Server
from testsite.models import Result
from timing import Sleeper

pytestmark = pytest.mark.django_db(transaction=True)


def post(client: Client, path: str, body: Any) -> Any:
    return client.post(path, json.dumps(body), content_type="application/json")


@pytest.mark.parametrize("slash", ["", "/"])
def test_tasks_with_and_without_slash(client: Client, images: natslease.Queue, slash: str) -> None:
    images.publish([b"a", b"b", b"c"])
    answer = post(client, f"/api/queues/images/tasks{slash}", {"batch_size": 2})
    assert answer.status_code == 200
    assert [task["data"] for task in answer.json()["tasks"]] == ["a", "b"]
    answer = client.get(f"/api/queues/images/tasks{slash}?batch=64")
    assert [task["data"] for task in answer.json()["tasks"]] == ["c"]


def test_only_marked_actions_are_non_atomic(client: Client, images: natslease.Queue) -> None:
    assert client.get("/api/queues/images/tasks/").json()["atomic"] is False
    assert client.get("/api/queues/").json()["atomic"] is True


def test_there_is_no_transaction_during_the_wait(
    client: Client, images: natslease.Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    reserve = natslease.Queue.reserve

    def look(queue: natslease.Queue, *args: Any, **options: Any) -> Any:
        held.append(connection.in_atomic_block)
        return reserve(queue, *args, **options)

    monkeypatch.setattr(natslease.Queue, "reserve", look)
    assert client.get("/api/queues/images/tasks/").status_code == 200
    assert held == [False]


def test_server_timing(client: Client, images: natslease.Queue) -> None:
    answer = client.get("/api/queues/images/tasks/?wait=0.3")
    name, value = answer["Server-Timing"].split(";dur=")
    assert name == "queue"
    assert 300 <= float(value) < 2000
    assert "Server-Timing" not in client.get("/api/queues/")


@pytest.mark.parametrize("wait", [0.0, 0.1, 0.5])
def test_an_empty_queue_holds_no_thread_longer_than_was_asked_for(
    client: Client, images: natslease.Queue, wait: float
) -> None:
    images.info()  # connected
    with Sleeper.beside() as sleeper:
        for _ in range(3):
            began = time.monotonic()
            answer = client.get(f"/api/queues/images/tasks/?wait={wait}")
            late = sleeper.lateness(began, time.monotonic())
            assert answer.json()["tasks"] == []
            spent = float(answer["Server-Timing"].split("dur=")[1]) / 1e3
            assert spent <= wait + 0.05 + late


def test_an_outage_is_503_with_retry_after(
    client: Client, images: natslease.Queue, nats_server: Server
) -> None:
    nats_server.kill()
    for _ in range(5):
        answer = client.get("/api/queues/images/tasks/")
        assert answer.status_code == 503
        assert int(answer["Retry-After"]) >= 1
        body = answer.json()
        assert body["error"] == "Task queue temporarily unavailable"
        assert body["code"] in ("connect_failed", "connection_lost", "circuit_open")
        assert body["retry_after"] > 0
        assert "Server-Timing" in answer


def test_an_outage_rolls_a_request_back_that_has_a_transaction(
    client: Client, images: natslease.Queue, nats_server: Server
) -> None:
    assert client.post("/api/queues/").status_code == 201
    nats_server.kill()
    assert client.post("/api/queues/").status_code == 503
    assert Result.objects.count() == 1


def test_a_queue_that_is_not_there_is_404(client: Client, site: Any) -> None:
    answer = client.get("/api/queues/nowhere/tasks/")
    assert (answer.status_code, answer.json()["code"]) == (404, "queue_not_found")


def test_more_threads_than_may_wait_are_sent_away_at_once(
    client: Client, images: natslease.Queue, site: Any
) -> None:
    site.NATSLEASE_HTTP = {"MAX_WAITING": 1}
    _waiting.places.take()
    try:
        answer = client.get("/api/queues/images/tasks/?wait=2")
    finally:
        _waiting.places.leave()
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert answer["Retry-After"] == "1"
    assert client.get("/api/queues/images/tasks/").status_code == 200
    assert _waiting.places.taken == 0


@pytest.mark.parametrize(
    "size", [0, -1, 1_000_000, 1001, 1.5, True, "many", "", None, [1], {"a": 1}, "9" * 100_000]
)
def test_bad_batch_sizes(client: Client, images: natslease.Queue, size: Any) -> None:
    images.publish([b"a"])
    answer = post(client, "/api/queues/images/tasks/", {"batch_size": size})
    if size is None:  # as if it were not there
        assert answer.status_code == 200
        return
    assert answer.status_code == 400
    assert answer.json() == {"batch_size": ["Must be a whole number from 1 to 1000."]}
    assert images.info().num_pending == 1


@pytest.mark.parametrize("body", [[], [1], "batch_size", 17, None])
def test_bodies_that_are_no_objects(client: Client, images: natslease.Queue, body: Any) -> None:
    images.publish([b"a"])
    assert post(client, "/api/queues/images/tasks/", body).status_code == 400
    assert images.info().num_pending == 1


def test_invalid_json(client: Client, images: natslease.Queue) -> None:
    images.publish([b"a"])
    answer = client.post(
        "/api/queues/images/tasks/", b'{"batch_size": ', content_type="application/json"
    )
    assert answer.status_code == 400
    assert images.info().num_pending == 1
