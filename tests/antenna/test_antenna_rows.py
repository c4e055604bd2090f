"""What was found in the incident of February 2026, row by row, and what holds now."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.utils import timezone

import natslease
from antennasite import Api, World, await_nats
from natslease.contrib.antenna import FINAL, JobQueue, reap_stale_jobs
from natslease.contrib.antenna.nats_queue import TaskQueueManager
from natslease.contrib.django import async_clients, clients
from natslease.testing import Server
from timing import Sleeper

WORKER = {"service": "adc (gpu-1)", "hostname": "gpu-1", "slot": "0", "version": "2.1"}


def manager_fetch(job_id: int, n: int = 1) -> Any:
    async def fetch() -> Any:
        async with TaskQueueManager() as manager:
            return await manager.reserve_tasks(job_id, n, timeout=0.1)

    return async_to_sync(fetch)()


def test_row_01_a_connect_has_a_timeout_and_is_not_repeated(
    world: World, api: Api, nats_server: Server
) -> None:
    job = world.job(images=1)
    clients["default"].ping()
    dials = clients["default"].stats().dial_failures
    nats_server.kill()
    began = time.monotonic()
    assert api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 1})[0] == 503
    assert time.monotonic() - began < 5
    # Nothing goes on connecting behind our backs.
    failed = clients["default"].stats().dial_failures
    assert failed <= dials + 2
    time.sleep(1.5)
    assert clients["default"].stats().dial_failures == failed


@pytest.mark.parametrize("status", [*FINAL, "CREATED", "PENDING", "CANCELING", "UNKNOWN"])
def test_row_02_a_job_that_is_not_active_has_no_tasks_and_who_asked_is_logged(
    world: World, api: Api, nats_server: Server, caplog: pytest.LogCaptureFixture, status: str
) -> None:
    job = world.job(status, images=3)
    nats_server.kill()  # it is not asked
    with caplog.at_level(logging.WARNING, "natslease.contrib.antenna"):
        answer = api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 64, "client_info": WORKER})
        assert answer == (200, {"tasks": []})
        assert api.post("/jobs/tasks/", {"batch_size": 64, "client_info": {}})[0] in (200, 503)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "natslease.contrib.antenna"]
    assert f"job {job.pk} is {status}" in line
    assert "adc (gpu-1)@gpu-1/0" in line
    assert "user worker" in line
    assert world.token not in line  # its fingerprint only
    assert "token " in line


def test_row_03_jobs_whose_status_is_final_are_not_incomplete(world: World, api: Api) -> None:
    for status in FINAL:
        world.job(status)  # their progress says that they have not begun
    open_job = world.job("STARTED")
    _, body = api.get("/jobs", ids_only=1, incomplete_only=1, limit=9)
    assert [j["id"] for j in body["results"]] == [open_job.pk]


def test_row_04_every_call_has_a_deadline(world: World, nats_server: Server) -> None:
    job = world.job(images=1)
    queue = JobQueue(job.pk)
    lease = queue.queue.reserve(1)[0].ack_subject
    calls = {
        "ensure": lambda: queue.ensure(timeout=0.5),
        "publish": lambda: queue.publish([{"id": "1"}], timeout=0.5),
        "reserve": lambda: queue.reserve(1, timeout=0.5),
        "info": lambda: queue.info(timeout=0.5),
        "is_drained": lambda: queue.is_drained(timeout=0.5),
        "dead_letters": lambda: queue.dead_letters(timeout=0.5),
        "delete": lambda: queue.delete(timeout=0.5),
        "ack": lambda: queue.queue.ack([lease], timeout=0.5),
    }
    with nats_server.frozen(), Sleeper.beside() as sleeper:
        late = {name: sleeper.lateness_of(call, 0.5) for name, call in calls.items()}
    assert max(late.values()) < 0.25, late
    # And no method of the manager can be called without one: each passes its own.
    source = inspect.getsource(TaskQueueManager)
    for line in source.splitlines():
        for call in (".ensure(", ".publish(", ".ack(", ".info(", ".dead_letters(", ".discard("):
            if f"await {'queue' if 'queue' in line else 'self._queue(job_id)'}{call}" in line:
                assert "timeout=NATS_JETSTREAM_TIMEOUT" in line, line


def test_row_05_an_interrupted_request_leaks_no_connection(
    world: World, nats_server: Server
) -> None:
    job = world.job()
    JobQueue(job.pk).ensure()

    async def interrupted() -> None:
        async with TaskQueueManager() as manager:
            await asyncio.wait_for(manager.reserve_tasks(job.pk, 1, timeout=5), 0.05)

    before = nats_server.varz()["total_connections"]
    for _ in range(20):
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            asyncio.run(interrupted())
    assert nats_server.varz()["total_connections"] <= before + 1
    assert async_clients["default"].stats().in_flight == 0


def test_row_06_no_thread_is_blocked_for_ever(world: World, api: Api, nats_server: Server) -> None:
    job = world.job(images=1)
    clients["default"].ping()
    answers: list[int] = []

    def ask() -> None:
        from django.db import connections

        answers.append(Api(world.token).post(f"/jobs/{job.pk}/tasks/", {"batch_size": 1})[0])
        connections.close_all()

    with nats_server.frozen():
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(8)
        assert not any(thread.is_alive() for thread in threads)
    assert answers == [503] * 8


def test_row_07_a_newer_worker_fences_the_older(world: World, api: Api) -> None:
    job = world.job(images=20)
    old: dict[str, Any] = dict(WORKER, epoch=register(api))
    assert len(ask(api, job, old, 5)[1]["tasks"]) == 5
    new: dict[str, Any] = dict(WORKER, epoch=register(api))
    assert new["epoch"] > old["epoch"]
    for path, body in (
        (f"/jobs/{job.pk}/tasks/", {"batch_size": 64}),
        ("/jobs/tasks/", {"batch_size": 64}),
        (f"/jobs/{job.pk}/extend/", {"reply_subjects": []}),
        ("/workers/heartbeat/", {}),
    ):
        status, answer = api.post(path, {**body, "client_info": old})
        assert (status, answer["code"]) == (409, "superseded"), path
    status, body = ask(api, job, new, 64)
    assert (status, len(body["tasks"])) == (200, 15)
    # Another slot, or another host, is another worker.
    for other in (dict(WORKER, slot="1"), dict(WORKER, hostname="gpu-2")):
        assert api.post("/workers/", {"client_info": other})[0] == 201
    assert ask(api, job, new, 1)[0] == 200


def register(api: Api, **more: str) -> int:
    status, body = api.post("/workers/", {"client_info": {**WORKER, **more}})
    assert status == 201, body
    return int(body["epoch"])


def ask(api: Api, job: Any, info: dict[str, Any], n: int) -> tuple[int, Any]:
    return api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": n, "client_info": info, "wait": 0})


def test_row_08_one_request_for_several_pipelines_or_for_all(world: World, api: Api) -> None:
    ants, wasps = world.pipeline_named("ants"), world.pipeline_named("wasps")
    jobs = {
        "moths": world.job(images=2),
        "ants": world.job(images=3, pipeline=ants),
        "wasps": world.job(images=4, pipeline=wasps),
    }
    world.foreign_job(images=5)
    world.job("SUCCESS", images=6)
    _, body = api.post("/jobs/tasks/", {"batch_size": 64, "pipelines": ["moths", "ants"]})
    found = [(t["pipeline_slug"], t["job_id"]) for t in body["tasks"]]
    assert sorted(set(found)) == sorted((s, jobs[s].pk) for s in ("moths", "ants"))
    assert len(found) == 5
    _, rest = api.post("/jobs/tasks/", {"batch_size": 64})
    assert [t["pipeline_slug"] for t in rest["tasks"]] == ["wasps"] * 4
    items = [
        {"reply_subject": t["reply_subject"], "result": {"image_id": t["image_id"]}}
        for t in body["tasks"] + rest["tasks"]
    ]
    status, answer = api.post("/jobs/result/", {"results": items})
    assert (status, answer["results_queued"]) == (200, 9)
    for slug, n in (("moths", 2), ("ants", 3), ("wasps", 4)):
        assert jobs[slug].detections.count() == n


def test_row_09_with_and_without_a_slash_and_no_redirect(world: World, api: Api) -> None:
    job = world.job(images=1)
    for path in ("/projects", "/jobs", f"/jobs/{job.pk}", "/ml/pipelines", "/workers"):
        for slash in ("", "/"):
            assert api.get(path + slash)[0] == 200, path + slash
    for path in (f"/jobs/{job.pk}/tasks", "/jobs/tasks"):
        for slash in ("", "/"):
            assert api.post(path + slash, {"batch_size": 1, "wait": 0})[0] == 200
    for path in (
        f"/jobs/{job.pk}/result",
        "/jobs/result",
        f"/projects/{world.project.pk}/pipelines",
    ):
        for slash in ("", "/"):
            assert api.post(path + slash, {"results": []})[0] in (200, 400)


def test_row_10_the_dispatch_mode_is_set_when_a_job_is_made(world: World, api: Api) -> None:
    fields = {"project": world.project.pk, "pipeline": "moths"}
    ids = {}
    for mode in ("async_api", "sync_api", "internal"):
        status, body = api.post("/jobs/", {**fields, "dispatch_mode": mode})
        assert (status, body["dispatch_mode"], body["status"]) == (201, mode, "CREATED")
        ids[mode] = body["id"]
    _, body = api.get("/jobs", ids_only=1, limit=9, dispatch_mode="async_api")
    assert [j["id"] for j in body["results"]] == [ids["async_api"]]
    status, body = api.post(f"/jobs/{ids['internal']}/tasks/", {"batch_size": 1})
    assert status == 400
    assert "internal" in str(body)


def test_row_11_it_is_shown_whether_a_processing_service_is_there(world: World, api: Api) -> None:
    from main.models import ProcessingService

    service = ProcessingService.objects.create(name=WORKER["service"])
    service.projects.add(world.project)
    job = world.job(images=1)

    def status() -> str:
        _, body = api.get("/ml/processing_services/")
        (found,) = body["results"]
        assert (found["last_seen"] is None) == (found["status"] == "offline")
        return str(found["status"])

    assert status() == "offline"
    ask(api, job, WORKER, 1)
    assert status() == "online"
    seen = timezone.now() - timedelta(seconds=90)
    ProcessingService.objects.update(last_seen=seen)
    assert status() == "stale"
    api.post(f"/jobs/{job.pk}/result/", {"results": [], "client_info": WORKER})
    assert status() == "online"
    # The workers themselves, beside the service that they belong to.
    register(api)
    _, body = api.get("/workers/")
    found = {(w["service"], w["hostname"], w["slot"]): w["status"] for w in body["workers"]}
    assert found[(WORKER["service"], "gpu-1", "0")] == "online"


def test_row_12_which_worker_has_a_job_or_a_task(
    world: World, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    job = world.job(images=3)
    one = dict(WORKER, epoch=register(api))
    two = dict(WORKER, slot="1", epoch=register(api, slot="1"))
    with caplog.at_level(logging.INFO, "natslease.contrib.antenna"):
        tasks = ask(api, job, one, 2)[1]["tasks"]
        ask(api, job, two, 1)
    assert f"2 tasks to worker {WORKER['service']}@gpu-1/0" in caplog.text
    task = f"r1:{tasks[0]['image_id']}"
    assert task in caplog.text

    def holders() -> dict[str, int]:
        _, body = api.get(f"/jobs/{job.pk}/workers/")
        return {w["slot"]: w["tasks"] for w in body["workers"]}

    until = time.monotonic() + 20  # they are written beside the requests
    while holders() != {"0": 2, "1": 1}:
        assert time.monotonic() < until, holders()
        time.sleep(0.05)
    status, body = api.get(f"/jobs/{job.pk}/tasks/{task}/workers/")
    assert status == 200
    assert "gpu-1/0" in body["holder"]
    assert [event["event"] for event in body["events"]] == ["reserve"]
    assert api.get(f"/jobs/{job.pk}/tasks/r1:999999/workers/")[0] == 404
    item = {"reply_subject": tasks[0]["reply_subject"], "result": {}}
    api.post(f"/jobs/{job.pk}/result/", {"results": [item], "client_info": one})
    while api.get(f"/jobs/{job.pk}/tasks/{task}/workers/")[1]["state"] != "done":
        assert time.monotonic() < until
        time.sleep(0.05)


def test_row_13_stale_jobs_are_ended_and_their_queues_removed(world: World) -> None:
    job = world.job(images=1)
    type(job).objects.filter(pk=job.pk).update(updated_at=timezone.now() - timedelta(hours=2))
    assert reap_stale_jobs().ended == [job.pk]
    job.refresh_from_db()
    assert job.status in FINAL
    assert JobQueue(job.pk).info() is None


def test_row_14_there_is_a_circuit_breaker(world: World, api: Api, nats_server: Server) -> None:
    job = world.job(images=1)
    nats_server.kill()
    codes = []
    until = time.monotonic() + 20
    while "circuit_open" not in codes:
        assert time.monotonic() < until
        codes.append(api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 1})[1]["code"])
    took = []
    for _ in range(20):
        began = time.monotonic()
        status, body = api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 1})
        took.append(time.monotonic() - began)
        assert status == 503
        assert body["retry_after"] > 0
    assert sorted(took)[len(took) // 2] < 0.1
    assert manager_raises(job.pk) == "circuit_open"
    nats_server.start()
    await_nats()
    assert len(api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 1})[1]["tasks"]) == 1


def manager_raises(job_id: int) -> str:
    with pytest.raises(natslease.Unavailable) as caught:
        manager_fetch(job_id)
    return caught.value.code


def test_row_15_one_connection_for_all_acks(world: World, api: Api, nats_server: Server) -> None:
    job = world.job(images=20)
    before = nats_server.varz()["total_connections"]
    for _ in range(20):
        (task,) = ask(api, job, WORKER, 1)[1]["tasks"]
        item = {"reply_subject": task["reply_subject"], "result": {"image_id": task["image_id"]}}
        assert api.post(f"/jobs/{job.pk}/result/", {"results": [item]})[0] == 200
    assert job.detections.count() == 20
    assert nats_server.varz()["total_connections"] == before


def test_row_16_many_pollers_of_an_empty_queue_cost_little(
    world: World, api: Api, nats_server: Server
) -> None:
    """Whoever polls by himself, as 16 loaders did: the server sees one pull per interval."""
    job = world.job()
    JobQueue(job.pk).ensure()

    def poll(_: int) -> None:
        from django.db import connections

        client = Api(world.token)
        for _ in range(5):
            client.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 1, "wait": 0.2})
        connections.close_all()

    def pulls() -> int:
        details = nats_server.jsz(streams=True, consumers=True)["account_details"][0]
        stream = next(s for s in details["stream_detail"] if s["name"] == f"job_{job.pk}")
        (consumer,) = stream["consumer_detail"]
        return int(consumer["num_waiting"])

    began = time.monotonic()
    threads = [threading.Thread(target=poll, args=(n,)) for n in range(8)]
    most = 0
    sent = clients["default"].stats().out_messages
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, pulls())
        time.sleep(0.02)
    took = time.monotonic() - began
    assert most <= 2
    # 40 polls; a pull each 0.25 s, and what asks who the worker is.
    assert clients["default"].stats().out_messages - sent <= 6 * (took / 0.25 + 40)
