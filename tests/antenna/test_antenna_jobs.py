"""Which jobs workers find, and what becomes of jobs that nobody works on."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

import natslease
from antennasite import Api, World, await_nats
from natslease.contrib.antenna import (
    FINAL,
    JobQueue,
    Liveness,
    ReapPolicy,
    incomplete,
    note_seen,
    reap_stale_jobs,
)
from natslease.contrib.antenna.tasks import reap_stale_jobs as reap_task
from natslease.contrib.django import clients
from natslease.testing import Server


def progress(status: str, share: float = 0.5) -> dict[str, Any]:
    stages = [
        {"key": "collect", "status": "SUCCESS", "progress": 1.0},
        {"key": "results", "status": status, "progress": share},
    ]
    return {"summary": {"status": "STARTED", "progress": 0.5}, "stages": stages}


def test_incomplete_jobs_are_those_that_are_not_over(world: World, api: Api) -> None:
    over = [world.job(status=status) for status in FINAL]
    over.append(world.job(progress=progress("SUCCESS", 1.0)))
    over.append(world.job(status="RETRY", progress=progress("FAILURE")))
    on = [world.job(status=s) for s in ("CREATED", "PENDING", "STARTED", "RETRY", "UNKNOWN")]
    on.append(world.job(progress=progress("STARTED")))
    odd: list[Any] = [{}, {"stages": []}, {"stages": None}, [], "text"]
    on += [world.job(progress=p) for p in odd]
    # The key of another stage, or another stage's status, is not the results'.
    on.append(world.job(progress={"stages": [{"key": "process", "status": "SUCCESS"}]}))
    query = {"ids_only": 1, "incomplete_only": 1, "limit": 100}
    status, body = api.get("/jobs", **query)
    assert status == 200
    assert {job["id"] for job in body["results"]} == {job.pk for job in on}
    assert body["results"][0]["pipeline_slug"] == "moths"
    _, body = api.get("/jobs", ids_only=1, limit=100)
    assert len(body["results"]) == len(on) + len(over)
    assert api.get("/jobs", incomplete_only="perhaps")[0] == 400


def test_one_job_at_random_by_default(world: World, api: Api) -> None:
    jobs = {world.job().pk for _ in range(4)}
    found: set[int] = set()
    for _ in range(60):
        _, body = api.get("/jobs", ids_only=1, incomplete_only=1, dispatch_mode="async_api")
        (one,) = body["results"]
        found.add(one["id"])
    assert found == jobs


def test_jobs_by_pipeline_and_dispatch_mode(world: World, api: Api) -> None:
    ants = world.pipeline_named("ants")
    moths, of_ants = world.job(status="CREATED"), world.job(pipeline=ants)
    internal = world.job(dispatch_mode="internal")

    def ids(**query: Any) -> set[int]:
        status, body = api.get("/jobs", ids_only=1, limit=9, **query)
        assert status == 200
        return {job["id"] for job in body["results"]}

    assert ids(pipeline__slug__in="moths") == {moths.pk, internal.pk}
    assert ids(pipeline__slug__in="moths,ants") == {moths.pk, internal.pk, of_ants.pk}
    assert ids(pipeline__slug__in="unknown") == set()
    assert ids(dispatch_mode="async_api") == {moths.pk, of_ants.pk}
    assert api.get("/jobs", dispatch_mode="nonsense")[0] == 400


def age(job: Any, seconds: float = 7200.0, contact: float | None = None) -> Any:
    """Makes a job look as if it had not changed for so long."""
    now = timezone.now()
    seen = None if contact is None else now - timedelta(seconds=contact)
    type(job).objects.filter(pk=job.pk).update(
        updated_at=now - timedelta(seconds=seconds), last_contact=seen
    )
    return job


def status_of(job: Any) -> str:
    job.refresh_from_db()
    return str(job.status)


def test_stale_jobs_are_ended_and_their_queues_removed(world: World) -> None:
    stale, fresh = age(world.job(images=2)), world.job(images=2)
    canceling = age(world.job(status="CANCELING", images=1))
    finished = age(world.job(images=0, progress=progress("SUCCESS", 1.0)))
    asked = age(world.job(images=1), contact=60)
    leased = age(world.job(images=1))
    assert JobQueue(leased.pk).reserve(1)

    report = reap_stale_jobs(dry_run=True)
    assert sorted(report.ended) == [stale.pk, canceling.pk, finished.pk]
    assert status_of(stale) == "STARTED"
    assert JobQueue(stale.pk).info() is not None

    report = reap_stale_jobs()
    assert sorted(report.ended) == [stale.pk, canceling.pk, finished.pk]
    assert report.kept == {
        asked.pk: "a worker has asked for it",
        leased.pk: "1 tasks are leased",
    }
    assert report.queues == [f"job_{stale.pk}", f"job_{canceling.pk}"]
    assert [status_of(j) for j in (stale, canceling, finished)] == ["FAILURE", "REVOKED", "SUCCESS"]
    assert [status_of(j) for j in (fresh, asked, leased)] == ["STARTED"] * 3
    assert JobQueue(stale.pk).info() is None
    for job in (fresh, asked, leased):
        assert JobQueue(job.pk).info() is not None
    assert reap_stale_jobs().ended == []  # twice is as good as once
    assert reap_task()["ended"] == []  # as beat calls it


def test_queues_without_a_job_are_swept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from natslease.contrib.antenna import _reaper

    over, running = world.job(status="SUCCESS"), world.job(images=1)
    for job_id in (over.pk, 999_999):
        JobQueue(job_id).ensure()
    other_queue = clients["default"].queue("other", consumer="x")
    other_queue.ensure()
    # What was made a moment ago may belong to a job that nobody else can see yet.
    assert reap_stale_jobs().queues == []
    monkeypatch.setattr(_reaper, "_FRESH_SECONDS", 0.0)
    report = reap_stale_jobs(limit=1)
    assert len(report.queues) == 1
    assert report.truncated
    assert sorted(report.queues + reap_stale_jobs().queues) == sorted(
        [f"job_{over.pk}", "job_999999"]
    )
    assert JobQueue(running.pk).info() is not None
    assert other_queue.info() is not None


def test_an_outage_ends_no_job(world: World, nats_server: Server) -> None:
    jobs = [age(world.job(images=1)) for _ in range(5)]
    nats_server.kill()
    began = time.monotonic()
    report = reap_stale_jobs()
    assert time.monotonic() - began < 15
    assert report.ended == []
    assert report.unfinished
    assert {status_of(job) for job in jobs} == {"STARTED"}
    nats_server.start()
    await_nats()
    assert len(reap_stale_jobs().ended) == 5


def test_a_run_is_bounded_and_says_so(world: World) -> None:
    jobs = [age(world.job()) for _ in range(5)]
    report = reap_stale_jobs(limit=2)
    assert len(report.ended) == 2
    assert report.truncated
    assert not reap_stale_jobs(limit=3).truncated
    assert {status_of(job) for job in jobs} == {"FAILURE"}


def test_a_job_that_has_changed_meanwhile_is_left(world: World) -> None:
    job = age(world.job())

    class Slow(ReapPolicy):
        def jobs(self) -> Any:
            rows = super().jobs()
            if locked.is_set():  # the second look, under the lock
                type(job).objects.filter(pk=job.pk).update(updated_at=timezone.now())
            locked.set()
            return rows

    locked = threading.Event()
    assert reap_stale_jobs(policy=Slow()).ended == []
    assert status_of(job) == "STARTED"


def test_the_site_decides_how_a_job_ends(world: World, site: Any) -> None:
    site.NATSLEASE_ANTENNA = {**site.NATSLEASE_ANTENNA, "REAP_POLICY": f"{__name__}.ToUnknown"}
    job = age(world.job(status="RETRY"))
    assert reap_stale_jobs().ended == [job.pk]
    assert status_of(job) == "REVOKED"


class ToUnknown(ReapPolicy):
    def end(self, job: Any, info: natslease.QueueInfo | None) -> None:
        assert info is None
        job.status = "REVOKED"
        job.save()


def test_liveness_by_when_it_was_seen(site: Any) -> None:
    now = timezone.now()

    def seen(seconds: float) -> str:
        return Liveness.of(now - timedelta(seconds=seconds), now)

    assert [seen(s) for s in (0, 59, 60, 61, 3600, 3601)] == (
        ["online"] * 3 + ["stale"] * 2 + ["offline"]
    )
    assert Liveness.of(None) == "offline"
    site.NATSLEASE_ANTENNA = {"ONLINE_SECONDS": 5, "STALE_SECONDS": 10}
    assert [seen(s) for s in (5, 6, 11)] == ["online", "stale", "offline"]


@pytest.mark.django_db
def test_what_was_seen_a_moment_ago_costs_no_query(
    world: World, django_assert_num_queries: Any
) -> None:
    from main.models import Job

    job = world.job(images=1)
    assert note_seen(job, "last_contact") == 1
    job.refresh_from_db()
    with django_assert_num_queries(0):
        assert note_seen(job, "last_contact") == 0
    job.last_contact -= timedelta(seconds=11)
    # Somebody else has noted it meanwhile.
    assert note_seen(job, "last_contact") == 0
    Job.objects.update(last_contact=job.last_contact)
    assert note_seen(job, "last_contact") == 1


def test_incomplete_is_one_query(world: World, django_assert_num_queries: Any) -> None:
    from main.models import Job

    world.job()
    with django_assert_num_queries(1):
        assert len(incomplete(Job.objects.all())) == 1


@pytest.mark.django_db  # which Celery's checks look at
def test_what_beat_is_to_run_exists(site: Any) -> None:
    from antenna.celery import app

    app.loader.import_default_modules()
    assert {entry["task"] for entry in site.CELERY_BEAT_SCHEDULE.values()} <= set(app.tasks)
