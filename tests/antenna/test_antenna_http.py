"""The HTTP that workers use: tasks, results, more time; and what is bad input."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from antennasite import Api, World
from natslease.contrib.antenna import JobQueue
from natslease.testing import Server


def take(api: Api, job: Any, n: int = 64) -> list[dict[str, Any]]:
    status, body = api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": n, "wait": 0})
    assert status == 200, body
    return list(body["tasks"])


@pytest.mark.parametrize("slash", ["/", ""])
def test_tasks_are_served_with_all_that_they_carry(world: World, api: Api, slash: str) -> None:
    job = world.job(images=5)
    status, body = api.post(f"/jobs/{job.pk}/tasks{slash}", {"batch_size": 3})
    assert status == 200
    assert len(body["tasks"]) == 3
    image = world.images[0]
    task = body["tasks"][0]
    assert task.pop("reply_subject")
    assert task == {
        "id": f"{job.pk}-{image.pk}",
        "image_id": str(image.pk),
        "image_url": image.url,
        "extra": [1],
        "attempt": 1,
    }


@pytest.mark.parametrize("slash", ["/", ""])
def test_workers_of_before_ask_with_get(world: World, api: Api, slash: str) -> None:
    job = world.job(images=5)
    status, body = api.get(f"/jobs/{job.pk}/tasks{slash}", batch=64)
    assert (status, len(body["tasks"])) == (200, 5)
    assert api.get(f"/jobs/{job.pk}/tasks{slash}", batch=64) == (200, {"tasks": []})


def test_a_result_is_saved_and_then_acknowledged(world: World, api: Api) -> None:
    job = world.job(images=2)
    first, second = take(api, job)
    items = [
        {"reply_subject": t["reply_subject"], "result": {"image_id": t["image_id"], "n": 1}}
        for t in (first, second)
    ]
    status, body = api.post(f"/jobs/{job.pk}/result/", {"results": items[:1]})
    assert status == 200
    (told,) = body.pop("tasks")
    assert body == {"status": "accepted", "job_id": job.pk, "results_queued": 1}
    assert told.pop("task_id")
    assert told == {"reply_subject": first["reply_subject"], "status": "queued"}
    assert job.detections.count() == 1
    info = JobQueue(job.pk).info()
    assert info is not None
    assert info.num_ack_pending == 1
    # The last result ends the job, and takes its queue away.
    api.post(f"/jobs/{job.pk}/result/", {"results": items[1:]})
    job.refresh_from_db()
    assert job.status == "SUCCESS"
    assert JobQueue(job.pk).info() is None


def test_the_same_result_twice_is_harmless(world: World, api: Api) -> None:
    job = world.job(images=2)
    task, _ = take(api, job)
    item = {"reply_subject": task["reply_subject"], "result": {"image_id": task["image_id"]}}
    statuses = []
    for _ in range(2):
        _, body = api.post(f"/jobs/{job.pk}/result/", {"results": [item, item]})
        statuses += [t["status"] for t in body["tasks"]]
    assert statuses == ["queued", "duplicate", "duplicate", "duplicate"]
    assert job.detections.count() == 1


def test_one_bad_item_does_not_lose_the_good_ones(world: World, api: Api) -> None:
    job, other, foreign = world.job(images=3), world.job(images=1), world.foreign_job(images=1)
    good, spare, _ = take(api, job)
    (of_other,) = take(api, other)
    (lease,) = JobQueue(foreign.pk).reserve(1)
    forged = good["reply_subject"][:-1] + ("A" if good["reply_subject"][-1] != "A" else "B")
    bad: list[Any] = [
        forged,
        of_other["reply_subject"],
        lease.ack_subject,
        "$JS.API.STREAM.PURGE.job_1",
        "job.1.tasks",
        "$JS.ACK.a\r\nPUB x 0\r\n",
        "",
        7,
        None,
    ]
    items = [{"reply_subject": b, "result": {}} for b in bad]
    items += [{"reply_subject": spare["reply_subject"]}, "nonsense", {"result": {}}]  # type: ignore[list-item]
    items.append({"reply_subject": good["reply_subject"], "result": {"image_id": good["image_id"]}})
    status, body = api.post(f"/jobs/{job.pk}/result/", {"results": items})
    assert status == 200
    assert [t["status"] for t in body["tasks"]] == ["invalid"] * (len(items) - 1) + ["queued"]
    assert all(t.get("error") for t in body["tasks"][:-1])
    assert job.detections.count() == 1
    for queue, left in ((JobQueue(job.pk), 2), (JobQueue(other.pk), 1), (JobQueue(foreign.pk), 1)):
        info = queue.info()
        assert info is not None
        assert info.num_ack_pending == left


def test_results_for_a_job_that_is_over_are_gone(world: World, api: Api) -> None:
    job = world.job(images=1)
    (task,) = take(api, job)
    job.status = "REVOKED"
    job.save()
    item = {"reply_subject": task["reply_subject"], "result": {"image_id": task["image_id"]}}
    for path in (f"/jobs/{job.pk}/result/", "/jobs/result/"):
        status, body = api.post(path, {"results": [item]})
        assert status == 200
        assert [t["status"] for t in body["tasks"]] == ["gone"]
    assert job.detections.count() == 0
    info = JobQueue(job.pk).info()
    assert info is not None
    assert info.num_ack_pending == 1


@pytest.mark.parametrize(
    "body",
    [
        {"batch_size": 0},
        {"batch_size": -1},
        {"batch_size": 1_000_000},
        {"batch_size": "many"},
        {"batch_size": 1.5},
        {"batch_size": 1, "wait": -1},
        {"batch_size": 1, "wait": "long"},
        {"batch_size": 1, "client_info": "me"},
        {"batch_size": 1, "client_info": {"x": "y" * 5000}},
        {"batch_size": 1, "client_info": {"epoch": "one"}},
        {"batch_size": 1, "client_info": {"hostname": "a\0b"}},
    ],
)
def test_nonsense_is_told_so_and_nothing_is_touched(
    world: World, api: Api, body: dict[str, Any]
) -> None:
    job = world.job(images=1)
    for path in (f"/jobs/{job.pk}/tasks/", "/jobs/tasks/"):
        status, answer = api.post(path, body)
        assert status == 400, (path, answer)
    info = JobQueue(job.pk).info()
    assert info is not None
    assert info.num_pending == 1


def test_nonsense_about_pipelines_projects_and_jobs(world: World, api: Api) -> None:
    world.job(images=1)
    bad: list[dict[str, Any]] = [
        {"pipelines": "moths"},
        {"pipelines": [1]},
        {"pipelines": ["a\0b"]},
        {"projects": 1},
        {"projects": [10**30]},
        {"projects": [True]},
    ]
    for fields in bad:
        assert api.post("/jobs/tasks/", {"batch_size": 1, **fields})[0] == 400, fields
    leases = ["$JS.ACK.job_99999999999999999999.c.1.1.1.1.0", "$JS.ACK.job_1.c.1.1.1.1.0"]
    status, body = api.post("/jobs/extend/", {"reply_subjects": leases})
    assert status == 200
    assert [x["status"] for x in body["leases"]] == ["invalid"] * 2
    assert api.post("/jobs/extend/", {"reply_subjects": ["x"] * 10_001})[0] == 400
    assert api.post("/jobs/99999999999999999999/tasks/", {"batch_size": 1})[0] == 404


def test_bodies_that_are_no_json_objects(world: World, api: Api) -> None:
    job = world.job(images=1)
    for path in (f"/jobs/{job.pk}/tasks/", f"/jobs/{job.pk}/result/", "/jobs/result/"):
        status, _ = api.raw(path, b'{"batch_size": ')
        assert status == 400
    bodies: list[Any] = [[], {"results": {}}, {"results": None}, {}]
    for body in bodies:
        assert api.post(f"/jobs/{job.pk}/result/", body)[0] == 400


def test_jobs_and_pipelines_that_one_may_not_see(world: World, api: Api) -> None:
    world.job(images=1)
    foreign = world.foreign_job(images=1)
    assert api.post(f"/jobs/{foreign.pk}/tasks/", {"batch_size": 1})[0] == 404
    assert api.post(f"/jobs/{foreign.pk}/result/", {"results": []})[0] == 404
    for slug in ("bees", "unknown"):
        status, body = api.post("/jobs/tasks/", {"batch_size": 9, "pipelines": ["moths", slug]})
        assert status == 404
        assert slug in str(body)
    named = [world.project.pk, world.others.pk]
    status, body = api.post("/jobs/tasks/", {"batch_size": 9, "projects": named})
    assert (status, body) == (404, {"error": f"unknown projects: {world.others.pk}"})
    status, body = api.post("/jobs/tasks/", {"batch_size": 9, "wait": 0})
    assert len(body["tasks"]) == 1
    info = JobQueue(foreign.pk).info()
    assert info is not None
    assert info.num_pending == 1


def test_leases_of_a_queue_that_was_made_anew(world: World, api: Api, site: Any) -> None:
    site.NATSLEASE_HTTP = {"ACCEPT_LEASES": ["raw"], "EMIT_LEASES": "raw"}
    job = world.job(images=2)
    old, fresh = [t["reply_subject"] for t in take(api, job)]
    parts = old.split(".")
    parts[7] = str(int(parts[7]) - 60 * 1_000_000_000)  # it was published a minute before
    for path in ("extend", "nak", "release"):
        body = {"reply_subjects": [".".join(parts)]}
        _, answer = api.post(f"/jobs/{job.pk}/{path}/", body)
        assert [x["status"] for x in answer["leases"]] == ["gone"]
    info = JobQueue(job.pk).info()
    assert info is not None
    assert info.num_ack_pending == 2
    _, answer = api.post(f"/jobs/{job.pk}/release/", {"reply_subjects": [fresh]})
    assert [x["status"] for x in answer["leases"]] == ["released"]


def test_extend_release_and_nak(world: World, api: Api) -> None:
    job = world.job(images=3)
    leases = [t["reply_subject"] for t in take(api, job)]
    for path in (f"/jobs/{job.pk}", "/jobs"):
        status, body = api.post(f"{path}/extend/", {"reply_subjects": [*leases, "nonsense"]})
        assert status == 200
        assert body["ack_wait"] == 300
        assert [x["status"] for x in body["leases"]] == ["extended"] * 3 + ["invalid"]
        assert [x["reply_subject"] for x in body["leases"]] == [*leases, "nonsense"]
    _, body = api.post(f"/jobs/{job.pk}/release/", {"reply_subjects": leases[:1]})
    assert [x["status"] for x in body["leases"]] == ["released"]
    _, body = api.post("/jobs/nak/", {"reply_subjects": leases[1:2], "reason": "no such image"})
    assert [x["status"] for x in body["leases"]] == ["nak"]
    again = take(api, job)
    assert {t["attempt"] for t in again} == {2}
    assert len(again) == 2
    JobQueue(job.pk).delete()
    _, body = api.post(f"/jobs/{job.pk}/extend/", {"reply_subjects": leases[2:]})
    assert [x["status"] for x in body["leases"]] == ["gone"]


def test_a_worker_says_who_it_is_on_a_get(
    world: World, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    job = world.job(status="SUCCESS")
    api._client.credentials(
        HTTP_AUTHORIZATION=f"Token {world.token}",
        HTTP_X_CLIENT_INFO='{"service": "adc (gpu-1)", "hostname": "gpu-1"}',
    )
    with caplog.at_level(logging.WARNING, "natslease.contrib.antenna"):
        assert api.get(f"/jobs/{job.pk}/tasks", batch=64) == (200, {"tasks": []})
    assert "adc (gpu-1)@gpu-1/0" in caplog.text


def test_tasks_that_cannot_be_read_are_ended(world: World, api: Api) -> None:
    job = world.job(images=1)
    JobQueue(job.pk).queue.publish([b"\xff\x00", b"[1]"])
    assert len(take(api, job)) == 1
    info = JobQueue(job.pk).info()
    assert info is not None
    assert (info.num_pending, info.num_ack_pending) == (0, 1)


def test_a_job_whose_queue_is_missing_is_done_for_now(world: World, api: Api) -> None:
    job = world.job()
    assert api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 1}) == (200, {"tasks": []})


def test_an_outage_is_503_with_a_time(world: World, api: Api, nats_server: Server) -> None:
    job = world.job(images=1)
    nats_server.kill()
    for path in (f"/jobs/{job.pk}/tasks/", "/jobs/tasks/", "/workers/heartbeat/"):
        info = {"service": "s", "hostname": "h", "epoch": 1}
        status, body = api.post(path, {"batch_size": 1, "client_info": info})
        assert status == 503
        assert body["error"] == "Task queue temporarily unavailable"
        assert int(api.headers["Retry-After"]) >= 1


def test_a_saturated_consumer_is_503_and_not_empty(world: World, api: Api, site: Any) -> None:
    site.NATS_MAX_ACK_PENDING = 2
    job = world.job(images=3)
    assert len(take(api, job)) == 2
    status, body = api.post(f"/jobs/{job.pk}/tasks/", {"batch_size": 1, "wait": 0.3})
    assert (status, body["code"]) == (503, "saturated")
