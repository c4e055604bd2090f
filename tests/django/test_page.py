"""The page for staff, as its requests are answered; tests/browser looks at it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

import natslease
from natslease.contrib.django import clients, fleet_of, page
from natslease.fleet import Identity
from natslease.testing import Server

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def staff() -> Client:
    """Somebody of the staff, whose forms are looked at for their CSRF token."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_user("ann", is_staff=True))
    return client


@pytest.fixture
def letters(site: Any) -> natslease.Queue:
    """A queue with a dead letter, a leased and a waiting task."""
    site.NATSLEASE["default"]["DEAD_LETTERS"] = "dead"
    page._letters.clear()
    queue = clients["default"].queue(
        "jobs", subject="job.1.tasks", consumer="c", max_deliver=1, dead_letters="dead"
    )
    queue.ensure()
    queue.publish([b"0", b"1", b"2"])
    queue.nak(queue.reserve(1, wait=5))
    assert len(queue.reserve(1, wait=5)) == 1
    return queue


def act(client: Client, **fields: str) -> Any:
    token = client.get("/queues/").cookies["csrftoken"].value
    return client.post("/queues/act/", fields, headers={"X-CSRFToken": token})


def test_who_is_not_of_the_staff(client: Client, letters: natslease.Queue) -> None:
    assert client.get("/queues/")["Location"] == "/login/?next=/queues/"
    for user in (None, User.objects.create_user("joe")):
        if user is not None:
            client.force_login(user)
            assert client.get("/queues/").status_code == 403
        assert client.get("/queues/data/").status_code == 403
        fields = {"action": "purge", "stream": "jobs", "subject": "job.1.tasks", "consumer": "c"}
        assert client.post("/queues/act/", fields).status_code == 403
    assert letters.info().messages == 2


def test_the_page(staff: Client, site: Any) -> None:
    answer = staff.get("/queues/")
    assert b'data-act="/queues/act/"' in answer.content
    assert b"<select" not in answer.content
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        assert staff.get(f"/queues/{name}")["Content-Type"].startswith(kind)
    assert staff.get("/queues/page.py").status_code == 404
    site.NATSLEASE = {"default": {"URL": "nats://a"}, "other": {"URL": "nats://b"}}
    assert b"<select" in staff.get("/queues/").content


def test_the_data(staff: Client, letters: natslease.Queue) -> None:
    answer = staff.get("/queues/data/?pattern=j*")
    assert answer["Cache-Control"].startswith("max-age=0")
    assert answer["Server-Timing"]
    told = json.loads(answer.content)
    (row,) = told["queues"]
    assert (row["stream"], row["consumer"], row["subject"]) == ("jobs", "c", "job.1.tasks")
    assert (row["pending"], row["leased"], row["dead"]) == (1, 1, 1)
    assert told["error"] is None
    assert told["process"]["connected"]
    assert told["process"]["breaker"] == "closed"
    assert staff.get("/queues/data/?alias=none").status_code == 404
    # What natslease keeps for itself is not among them.
    assert "dead" in [stream.name for stream in clients["default"].streams()]
    assert [q["stream"] for q in json.loads(staff.get("/queues/data/").content)["queues"]] == [
        "jobs"
    ]


def test_an_outage_is_shown(staff: Client, site: Any, nats_server: Server) -> None:
    nats_server.kill()
    for _ in range(4):
        answer = staff.get("/queues/data/")
        assert answer.status_code == 200
    told = json.loads(answer.content)
    assert told["error"].startswith("Task queue temporarily unavailable")
    assert told["process"]["breaker"] == "open"
    assert told["process"]["last_error"]


def test_requeue_and_purge(
    staff: Client, letters: natslease.Queue, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {"stream": "jobs", "subject": "job.1.tasks", "consumer": "c"}
    assert act(staff, action="requeue", **fields).json() == {"done": "1 tasks of jobs requeued"}
    assert letters.info().num_pending == 2
    assert act(staff, action="purge", **fields).json() == {"done": "3 tasks of jobs deleted"}
    assert letters.info().messages == 0
    assert "purge by ann: jobs: 3 tasks of jobs deleted" in caplog.text


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 400),
        ({"action": "purge"}, 400),
        ({"action": "delete", "stream": "jobs"}, 400),
        ({"action": "purge", "stream": "a b"}, 400),
        ({"action": "purge", "stream": "jobs", "alias": "none"}, 400),
        ({"action": "requeue", "stream": "dead"}, 400),
        ({"action": "purge", "stream": "natslease_events"}, 400),
        ({"action": "purge", "stream": "KV_natslease_workers"}, 400),
        ({"action": "purge", "stream": "nowhere"}, 404),
    ],
)
def test_actions_that_are_none(
    staff: Client, letters: natslease.Queue, fields: dict[str, str], status: int
) -> None:
    answer = act(staff, **fields)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert letters.info().messages == 2


def test_workers_are_shown_and_stopped(staff: Client, site: Any) -> None:
    fleet = fleet_of()
    place = Identity("adc", host="h", slot="0")
    registered = fleet.register(place)
    (row,) = json.loads(staff.get("/queues/data/").content)["workers"]
    assert (row["name"], row["status"], row["stopped"]) == ("adc@h/0", "online", "")
    assert act(staff, action="stop", worker="adc@h/0").status_code == 200
    with pytest.raises(natslease.Superseded, match="by ann"):
        fleet.renew(place, registered.epoch)
    (row,) = json.loads(staff.get("/queues/data/").content)["workers"]
    assert row["stopped"] == "by ann"
    assert act(staff, action="stop", worker="adc@h/1").status_code == 404
    assert act(staff, action="stop", worker="adc").status_code == 400
    assert act(staff, action="stop").status_code == 400


def test_only_by_post_and_with_the_token(staff: Client, letters: natslease.Queue) -> None:
    fields = {"action": "purge", "stream": "jobs", "subject": "job.1.tasks", "consumer": "c"}
    assert staff.get("/queues/act/", fields).status_code == 405
    assert staff.post("/queues/act/", fields).status_code == 403
    assert staff.post("/queues/data/").status_code == 405
    assert letters.info().messages == 2


def test_during_an_outage_nothing_is_done(staff: Client, site: Any, nats_server: Server) -> None:
    nats_server.kill()
    answer = act(staff, action="purge", stream="jobs")
    assert answer.status_code == 503
    assert answer["Retry-After"]
