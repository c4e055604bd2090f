"""Every place where the application calls NATS, with the server frozen or killed in the middle.

These are the call sites of docs/howto/antenna.md, in both of its steps: with the manager inside
``async_to_sync``, and with ``JobQueue``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.utils import timezone

import natslease
from antennasite import Api, World, await_nats
from natslease.contrib.antenna import JobQueue, reap_stale_jobs
from natslease.contrib.antenna.nats_queue import TaskQueueManager
from natslease.contrib.django import clients
from natslease.contrib.django.inbox import settle_pending
from natslease.testing import Server

# What the application's callers catch, and answer with a 503. (nats.errors.Error besides.)
CAUGHT = (asyncio.TimeoutError, OSError)
# A call's deadline is 2 s here, 10 s inside the manager; silence is noticed after 1 s.
LONGEST = 6.0

IMAGES = 10_000
STEPS = ("manager", "JobQueue")


class Fault:
    """What befalls the server."""

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self.server = server

    def begin(self) -> None:
        self.server.freeze() if self.name == "frozen" else self.server.kill()

    def finish(self) -> None:
        self.server.thaw() if self.name == "frozen" else self.server.start()
        await_nats()

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, *_: object) -> None:
        self.finish()


@pytest.fixture(params=["frozen", "killed"])
def fault(request: pytest.FixtureRequest, nats_server: Server) -> Fault:
    """A server that stands still, and one that is gone."""
    return Fault(request.param, nats_server)


@contextlib.contextmanager
def timed(longest: float = LONGEST) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < longest


def in_manager(work: Callable[[TaskQueueManager], Any], **options: Any) -> Any:
    async def run() -> Any:
        async with TaskQueueManager(**options) as manager:
            return await work(manager)

    return async_to_sync(run)()


def counters(job: Any) -> tuple[int, int]:
    info = JobQueue(job.pk).info()
    assert info is not None
    return info.num_pending, info.num_ack_pending


def test_fetching_tasks(world: World, api: Api, fault: Fault) -> None:
    job = world.job(images=5)
    with fault, timed():
        with pytest.raises(CAUGHT):
            in_manager(lambda m: m.reserve_tasks(job.pk, 2, timeout=0.2))
        status, body = api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 2})
        assert (status, body["error"]) == (503, "Task queue temporarily unavailable")
        assert int(api.headers["Retry-After"]) >= 1
    status, body = api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 9})
    assert status == 200
    assert len(body["tasks"]) == 5
    assert counters(job) == (0, 5)  # nothing is with a request that nobody reads


def test_a_request_that_waits_when_it_happens(world: World, api: Api, fault: Fault) -> None:
    job = world.job(images=1)
    assert len(api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 9})[1]["tasks"]) == 1
    answers: list[tuple[int, Any]] = []

    def ask() -> None:
        answers.append(api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 9, "wait": 3}))
        from django.db import connections

        connections.close_all()

    thread = threading.Thread(target=ask)
    with timed(8):
        thread.start()
        # Its pull is out when the server says that the consumer has one waiting.
        until = time.monotonic() + 5
        while pulls_out(job) == 0:
            assert time.monotonic() < until
            time.sleep(0.01)
        with fault:
            thread.join(8)
    assert not thread.is_alive()
    assert answers[0][0] == 503
    assert counters(job) == (0, 1)


def pulls_out(job: Any) -> int:
    info = JobQueue(job.pk).info()
    assert info is not None
    return info.num_waiting


class Midway:
    """Lets the fault happen once half of the images are in the queue."""

    def __init__(self, fault: Fault, stream: str) -> None:
        self._fault = fault
        self._stream = stream
        self._thread = threading.Thread(target=self._run)
        self.happened = threading.Event()

    def _run(self) -> None:
        server = self._fault.server
        until = time.monotonic() + 60
        while time.monotonic() < until:
            details = server.jsz(streams=True).get("account_details") or [{"stream_detail": []}]
            for stream in details[0]["stream_detail"]:
                if stream["name"] == self._stream and stream["state"]["messages"] >= IMAGES // 2:
                    self._fault.begin()
                    self.happened.set()
                    time.sleep(2.5)  # the length of the outage: longer than a call's deadline
                    if self._fault.name == "frozen":
                        server.thaw()
                    else:
                        server.start()
                    return

    def __enter__(self) -> Midway:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)


@pytest.mark.parametrize("step", STEPS)
def test_queueing_10000_images_interrupted_at_5000(world: World, fault: Fault, step: str) -> None:
    job = world.job(images=0)
    JobQueue(job.pk).ensure()
    tasks = [{"id": str(i), "image_id": str(i), "image_url": "https://x"} for i in range(IMAGES)]
    run, longest = "run-1", 0.0
    publish = _by_manager if step == "manager" else _by_job_queue
    with Midway(fault, f"job_{job.pk}") as midway:
        left = tasks
        until = time.monotonic() + 60
        while left:
            assert time.monotonic() < until
            began = time.monotonic()
            left = publish(job.pk, run, left)
            longest = max(longest, time.monotonic() - began)
            if left:
                await_nats()
    assert midway.happened.is_set(), "it was over before the server was interrupted"
    assert longest < 30
    # Each image is in the queue, and each once: what was in doubt was published again.
    seen: list[str] = []
    queue = JobQueue(job.pk)
    info = queue.info()
    assert info is not None
    assert info.num_pending == IMAGES
    while batch := queue.reserve(1000, wait=0.2):
        seen += [lease.json()["image_id"] for lease in batch]
        assert {result.status for result in queue.queue.ack(batch)} == {"settled"}
    assert len(seen) == IMAGES
    assert set(seen) == {str(i) for i in range(IMAGES)}


def _by_manager(job_id: int, run: str, tasks: list[Any]) -> list[Any]:
    """As the application does it: 200 at a time, each by itself. Returns what is left."""

    async def work(manager: TaskQueueManager) -> list[Any]:
        places = asyncio.Semaphore(200)

        async def publish(task: Any) -> bool:
            async with places:
                return await manager.publish_task(job_id, task)

        done = await asyncio.gather(*map(publish, tasks))
        return [task for task, queued in zip(tasks, done, strict=True) if not queued]

    left: list[Any] = in_manager(work, run=run)
    return left


def _by_job_queue(job_id: int, run: str, tasks: list[Any]) -> list[Any]:
    queue = JobQueue(job_id, run=run)
    for start in range(0, len(tasks), 500):
        try:
            report = queue.publish(tasks[start : start + 500])
        except (natslease.Unavailable, natslease.DeadlineExceeded):
            return tasks[start:]
        if report.failed:
            failed = {result.index for result in report.failed}
            again = [task for i, task in enumerate(tasks[start : start + 500]) if i in failed]
            return again + tasks[start + 500 :]
    return []


def test_the_ack_after_a_result_is_saved(world: World, api: Api, fault: Fault) -> None:
    from natslease.contrib.django.models import InboxEntry

    job = world.job(images=3)
    (by_manager,) = in_manager(lambda m: m.reserve_tasks(job.pk, 1, timeout=0.2))
    _, body = api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 9})
    items = [
        {"reply_subject": t["reply_subject"], "result": {"image_id": t["image_id"]}}
        for t in body["tasks"]
    ]
    # A server that is killed at once has not written down yet what it has delivered, and never
    # answers an ack of what it does not know. Nothing tells when it has.
    time.sleep(0.5)
    with fault, timed(20):
        # The result is saved, whatever became of NATS; the ack waits for better times.
        status, body = api.post(f"/jobs/{job.pk}/result/", {"results": items})
        assert status == 200
        assert [t["status"] for t in body["tasks"]] == ["queued", "queued"]
        assert job.detections.count() == 2
        # The first step: whether it is acknowledged is told, and in time.
        assert in_manager(lambda m: m.acknowledge_task(by_manager.reply_subject)) is False
    InboxEntry.objects.update(saved_at=timezone.now() - timedelta(minutes=1))
    assert settle_pending() == {"settled": 2}
    assert in_manager(lambda m: m.acknowledge_task(by_manager.reply_subject)) is True
    assert counters(job) == (0, 0)
    assert job.detections.count() == 2


@pytest.mark.parametrize("step", STEPS)
def test_cleaning_up(world: World, fault: Fault, step: str) -> None:
    job = world.job(images=2)

    def clean() -> bool:
        if step == "manager":
            return bool(in_manager(lambda m: m.cleanup_job_resources(job.pk)))
        return JobQueue(job.pk).delete()

    with fault, timed(25):
        if step == "manager":
            assert clean() is False
        else:
            with pytest.raises(CAUGHT):
                clean()
    # What has reached a frozen server happens when it goes on: the rest is for the next attempt.
    clean()
    assert clean() is (step == "manager")  # the manager tells that it is gone, the other how
    assert JobQueue(job.pk).info() is None


def test_the_checks_of_beat(world: World, fault: Fault) -> None:
    job = world.job(images=2)
    type(job).objects.filter(pk=job.pk).update(updated_at="2026-01-01T00:00:00Z")
    with fault, timed(20):
        report = reap_stale_jobs(timeout=5)
        assert report.ended == []
        assert report.unfinished
        with pytest.raises(CAUGHT):
            in_manager(lambda m: m.list_job_stream_snapshots())
        in_manager(lambda m: m.log_consumer_stats_snapshot(job.pk))  # only tells
        snapshots = [{"job_id": job.pk, "num_redelivered": None}]
        in_manager(lambda m: m.populate_redelivered_counts(snapshots))
        assert snapshots[0]["num_redelivered"] is None
    job.refresh_from_db()
    assert job.status == "STARTED"
    assert reap_stale_jobs().ended == [job.pk]


def test_more_time_and_giving_back(world: World, api: Api, fault: Fault) -> None:
    job = world.job(images=2)
    _, body = api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 9})
    leases = [t["reply_subject"] for t in body["tasks"]]
    with fault, timed(15):
        for what in ("extend", "release"):
            status, body = api.post(f"/jobs/{job.pk}/{what}/", {"reply_subjects": leases})
            statuses = {x["status"] for x in body["leases"]} if status == 200 else set()
            assert status == 503 or statuses == {"unknown"}
    assert api.post(f"/jobs/{job.pk}/extend/", {"reply_subjects": leases})[0] == 200


def test_nothing_is_kept_of_an_outage(world: World, api: Api, fault: Fault) -> None:
    """No thread, no connection and no database connection stays behind."""
    job = world.job(images=1)
    api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 1})
    before = threading.active_count()
    with fault, timed(20):
        for _ in range(30):
            assert api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 1})[0] == 503
    assert threading.active_count() <= before
    assert clients["default"].stats().in_flight == 0
