"""The template of docs/reference/permissions.md lets each role do its work, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

import natslease
from faces import Face
from natslease import Message
from natslease.fleet import Identity
from natslease.testing import Server
from permissions import template, template_text, violations

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(config=template()) as server:
        yield server


@pytest.fixture
def connect(face: Face, server: Server) -> Callable[[str], Any]:
    """A client of a role; each has a connection of its own."""
    count = iter(range(100))

    def connect(role: str) -> Any:
        return face.client(
            server.url,
            name=f"{role} {next(count)}",
            user=role,
            password=f"{role}-secret",
            inbox_prefix=f"_INBOX.{role}",
            timeout=10.0,
        )

    return connect


@pytest.fixture(params=["workqueue", "limits"])
def role(request: pytest.FixtureRequest, connect: Callable[[str], Any]) -> Callable[[str], Any]:
    """The queue, as a role has it."""

    def queue_of(name: str) -> Any:
        return connect(name).queue(
            "job_8",
            subject="job.8.tasks",
            consumer="job-8-consumer",
            dead_letters="dead",
            max_deliver=2,
            ack_wait=1.0,
            retention=request.param,
        )

    return queue_of


def test_each_role_does_its_work(role: Callable[[str], Any], server: Server) -> None:
    web, worker, janitor = role("web"), role("worker"), role("janitor")
    assert janitor.ensure().created
    assert not janitor.ensure(conflict="error").created
    assert janitor.ensure(conflict="update").max_deliver == 2

    assert len(web.publish([Message(b"%d" % i, id=str(i)) for i in range(8)]).accepted) == 8
    assert web.info().messages == 8

    assert worker.info().num_pending == 8
    taken = worker.reserve(8)
    while len(taken) < 8:
        taken += worker.reserve(8, wait=2)
    assert [r.status for r in worker.ack([taken[0], taken[1].ack_subject])] == ["settled"] * 2
    taken[2].extend()
    taken[3].term("no use")
    worker.keep([taken[4]])
    taken[5].release()
    (again,) = worker.reserve(1, wait=2)
    again.release()  # on the last attempt
    (again,) = worker.reserve(1, wait=2)
    assert again.id == "5"
    again.ack()
    taken[6].nak()
    (again,) = worker.reserve(1, wait=2)
    assert worker.nak([again.ack_subject], reason="broken")[0].status == "settled"
    assert [r.status for r in worker.ack([taken[2], taken[4], taken[7]])] == ["settled"] * 3
    assert worker.reserve(1) == []

    (letter,) = janitor.dead_letters()
    assert (letter.id, letter.reason) == ("6", "broken")
    assert len(janitor.requeue([letter]).accepted) == 1
    assert janitor.dead_letters() == []
    (again,) = worker.reserve(1, wait=2)
    for _ in range(2):  # the takers die
        again = (worker.reserve(1, wait=3) or [again])[0]
    while not (letters := janitor.dead_letters()):
        assert worker.reserve(1, wait=0.1) == []
    assert len(janitor.requeue(letters).accepted) == 1
    assert janitor.purge() >= 1
    assert janitor.delete()
    assert violations(server.log) == []


def test_no_role_does_anothers(role: Callable[[str], Any], server: Server) -> None:
    web, worker, janitor = role("web"), role("worker"), role("janitor")
    janitor.ensure()
    web.publish([b"x"])
    forbidden = [
        web.reserve,
        web.purge,
        web.delete,
        web.dead_letters,
        worker.purge,
        worker.delete,
        janitor.reserve,
    ]
    for call in forbidden:
        began = time.monotonic()
        with pytest.raises(natslease.PermissionDenied) as raised:
            call(timeout=30)
        assert time.monotonic() - began < 10  # at once, not when the time is over
        assert raised.value.outcome == "rejected"
        assert not isinstance(raised.value, OSError)
    for queue in (web, worker):
        with pytest.raises(natslease.PermissionDenied):
            queue.ensure(conflict="update", timeout=10)
    assert janitor.info().messages == 1
    assert violations(server.log)


def test_each_role_does_its_part_in_tracking_workers(
    face: Face, connect: Callable[[str], Any], server: Server
) -> None:
    first, second = connect("worker"), connect("worker")
    web, janitor = face.fleet(connect("web")), face.fleet(connect("janitor"))
    queue = connect("janitor").queue("job_8", subject="job.8.tasks", consumer="job-8-consumer")
    queue.ensure()
    connect("web").queue("job_8", subject="job.8.tasks").publish([Message(b"x", id="17")])
    janitor.ensure()

    place = Identity("moths", "node", "0")
    first_fleet, second_fleet = face.fleet(first), face.fleet(second)
    older = first_fleet.join(place, version="1")
    (lease,) = first.queue("job_8", subject="job.8.tasks", consumer="job-8-consumer").reserve(1)
    lease.extend()
    lease.ack()
    first_fleet.flush()
    (info,) = web.workers()
    assert (info.worker, info.status, info.version) == (place, "online", "1")
    assert [event.kind for event in web.task("job_8", "17").events] == ["reserve", "extend", "ack"]
    assert web.history("job_8")
    assert web.events("job_8")
    assert web.holders("job_8")

    newer = second_fleet.join(place, version="2")
    until = time.monotonic() + 5
    while not older.superseded:  # it hears of it
        assert time.monotonic() < until
        time.sleep(0.01)
    assert janitor.stop(place, "enough")
    while not newer.superseded:
        assert time.monotonic() < until
        time.sleep(0.01)
    janitor.allow(place)
    assert janitor.sweep("job_*", min_age=0, dry_run=False).deleted == ["job_8"]
    older.leave()
    newer.leave()
    assert violations(server.log) == []


def test_no_role_does_anothers_part_in_tracking_workers(
    face: Face, connect: Callable[[str], Any], server: Server
) -> None:
    place = Identity("moths", "node", "0")
    worker, web = face.fleet(connect("worker")), face.fleet(connect("web"))
    with pytest.raises(natslease.PermissionDenied):
        worker.join(place)  # there is nothing yet that it could be written to
    face.fleet(connect("janitor")).ensure()
    with worker.join(place):
        for call, argument in (
            (web.stop, place),
            (web.register, place),
            (worker.sweep, "*"),
            (web.sweep, "*"),
        ):
            with pytest.raises(natslease.PermissionDenied):
                call(argument)
    assert violations(server.log)


def test_the_example_deploys_the_template() -> None:
    deployed = (ROOT / "examples" / "cluster" / "conf" / "roles.conf").read_text()
    users = deployed[deployed.index("users: [") :]
    assert template_text() == f"authorization {{\n{indent(users, '  ')}}}\n"


def test_an_inbox_of_anothers_is_refused(face: Face, server: Server) -> None:
    client = face.client(
        server.url, user="web", password="web-secret", inbox_prefix="_INBOX.worker"
    )
    with pytest.raises(natslease.PermissionDenied, match=r"inbox_prefix|InboxPrefix"):
        client.ping(timeout=10)
