"""TaskQueueManager: the contract of the application's own manager."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import pytest
from asgiref.sync import async_to_sync

import natslease
from natslease.contrib.antenna import nats_queue
from natslease.contrib.antenna.nats_queue import ConsumerState, TaskQueueManager
from natslease.testing import Server

T = TypeVar("T")

pytestmark = pytest.mark.usefixtures("site")


class Schema:
    """As a pydantic object of the application."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def within(work: Callable[[TaskQueueManager], Awaitable[T]], *arguments: Any, **options: Any) -> T:
    """Runs some work inside a manager, as the application's views do."""

    async def run() -> T:
        async with TaskQueueManager(*arguments, **options) as manager:
            return await work(manager)

    result: T = async_to_sync(run)()
    return result


def fill(n: int, job: int = 7, **more: Any) -> None:
    async def work(manager: TaskQueueManager) -> None:
        await manager.ensure_job_resources(job)
        for i in range(n):
            task = Schema(id=str(i), image_id=str(100 + i), image_url="https://x", **more)
            assert await manager.publish_task(job, task)

    within(work)


async def acknowledge(subject: str, manager: TaskQueueManager) -> bool:
    return await manager.acknowledge_task(subject)


def test_tasks_go_round(nats_url: str) -> None:
    fill(3, config={"threshold": 0.5})

    async def take(manager: TaskQueueManager) -> list[Any]:
        return await manager.reserve_tasks(7, 2, timeout=0.2)

    first, second = within(take)
    assert (first.id, first.image_id, first.image_url) == ("0", "100", "https://x")
    assert first.config == {"threshold": 0.5}
    assert first.reply_subject.startswith("$JS.ACK.job_7.job-7-consumer.1.")
    assert first.dict()["reply_subject"] == first.reply_subject

    async def settle(manager: TaskQueueManager) -> list[Any]:
        acked = await manager.acknowledge_task(second.reply_subject)
        return [acked, await manager.get_consumer_state(7), await manager.get_consumer_state(8)]

    assert within(settle) == [True, ConsumerState(1, 1, 0), None]
    assert within(lambda m: m.cleanup_job_resources(7)) is True
    assert within(take) == []
    assert within(lambda m: m.cleanup_job_resources(7)) is True
    assert within(lambda m: m.acknowledge_task(first.reply_subject)) is False


def test_what_is_queued_twice_in_a_run_is_queued_once(nats_url: str) -> None:
    task = Schema(id="1", image_id="9")

    async def publish(manager: TaskQueueManager) -> int:
        await manager.ensure_job_resources(7)
        assert await manager.publish_task(7, task)
        assert await manager.publish_task(7, task)
        state = await manager.get_consumer_state(7)
        assert state is not None
        return state.num_pending

    assert within(publish) == 1
    assert within(publish) == 2  # another manager is another run
    assert within(publish, run="r") == 3
    assert within(publish, run="r") == 3


def test_names_and_settings(site: Any, nats_url: str) -> None:
    manager = TaskQueueManager()
    assert manager.nats_url == nats_url
    assert manager._get_stream_name(5) == "job_5"
    assert manager._get_subject(5) == "job.5.tasks"
    assert manager._get_consumer_name(5) == "job-5-consumer"
    assert (nats_queue.TASK_TTR, nats_queue.NATS_MAX_DELIVER) == (300, 2)
    site.NATS_TASK_TTR = 42
    assert nats_queue.TASK_TTR == 42
    assert nats_queue.NATS_JETSTREAM_TIMEOUT == 10
    assert nats_queue.ADVISORY_STREAM_NAME == "advisories"
    assert set(nats_queue.__all__) <= set(dir(nats_queue)) | {"TASK_TTR", "NATS_MAX_DELIVER"}
    with pytest.raises(AttributeError):
        _ = nats_queue.nothing


def test_the_queue_is_made_as_the_application_makes_it(nats_server: Server) -> None:
    within(lambda m: m.ensure_job_resources(7), max_ack_pending=17)
    (account,) = nats_server.jsz(consumers=True, config=True, streams=True)["account_details"]
    stream = next(s for s in account["stream_detail"] if s["name"] == "job_7")
    config = stream["config"]
    assert (config["subjects"], config["retention"], config["storage"]) == (
        ["job.7.tasks"],
        "limits",
        "file",
    )
    assert config["max_age"] == 24 * 3600 * 10**9
    consumer = stream["consumer_detail"][0]["config"]
    assert consumer["durable_name"] == "job-7-consumer"
    assert (consumer["ack_policy"], consumer["deliver_policy"]) == ("explicit", "all")
    assert (consumer["max_deliver"], consumer["max_ack_pending"]) == (2, 17)
    assert consumer["ack_wait"] == 300 * 10**9


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m.ensure_job_resources(1),
        lambda m: m.publish_task(1, {"id": "1"}),
        lambda m: m.reserve_tasks(1, 1),
        lambda m: m.acknowledge_task("$JS.ACK.job_1.job-1-consumer.1.1.1.1.0"),
        lambda m: m.get_consumer_state(1),
        lambda m: m.list_job_stream_snapshots(),
        lambda m: m.get_dead_letter_image_ids(1),
        lambda m: m.delete_stream(1),
        lambda m: m.cleanup_job_resources(1),
        lambda m: m.js.stream_info("x"),
    ],
)
def test_outside_its_block_it_is_refused(use: Callable[[TaskQueueManager], Any]) -> None:
    with pytest.raises(RuntimeError, match="context manager"):
        asyncio.run(use(TaskQueueManager()))


def test_an_unreachable_server_raises_what_callers_catch(nats_server: Server) -> None:
    fill(1)
    nats_server.kill()
    for work in (
        lambda m: m.reserve_tasks(7, 1, timeout=0.2),
        lambda m: m.get_consumer_state(7),
        lambda m: m.list_job_stream_snapshots(),
        lambda m: m.get_dead_letter_image_ids(7),
        lambda m: m.ensure_job_resources(7),
    ):
        with pytest.raises((asyncio.TimeoutError, OSError)):
            within(work)
    assert within(lambda m: m.publish_task(7, {"id": "1"})) is False
    assert within(lambda m: m.acknowledge_task("$JS.ACK.job_7.job-7-consumer.1.1.1.1.0")) is False
    assert within(lambda m: m.cleanup_job_resources(7)) is False


def test_a_frozen_server_does_too_and_in_time(nats_server: Server) -> None:
    fill(1)
    with nats_server.frozen():
        began = time.monotonic()
        with pytest.raises((asyncio.TimeoutError, OSError)):
            within(lambda m: m.reserve_tasks(7, 1, timeout=0.2))
        assert time.monotonic() - began < 6


def test_saturation_is_not_an_empty_queue(nats_url: str) -> None:
    async def work(manager: TaskQueueManager) -> None:
        await manager.ensure_job_resources(7)
        for i in range(3):
            await manager.publish_task(7, {"id": str(i)})
        assert len(await manager.reserve_tasks(7, 5, timeout=0.2)) == 2
        with pytest.raises(natslease.Saturated):
            await manager.reserve_tasks(7, 1, timeout=0.3)

    within(work, max_ack_pending=2)


def test_foreign_subjects_are_not_acknowledged(
    nats_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    fill(1)
    before = nats_server.jsz(streams=True)
    for subject in (
        "$JS.API.STREAM.PURGE.job_7",
        "job.7.tasks",
        "$JS.ACK.other.other.1.1.1.1.0",
        "$JS.ACK.job_7.another-consumer.1.1.1.1.0",
        "$JS.ACK.job_7.job-7-consumer.1.1.1.1.0\r\nPUB job.7.tasks 1\r\nx",
        "",
    ):
        assert within(partial(acknowledge, subject)) is False
    assert nats_server.jsz(streams=True)["messages"] == before["messages"]
    assert len(caplog.records) >= 6


def test_lifecycle_lines_go_to_both_loggers_once(
    nats_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[str] = []

    class Job(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # It writes to the database: not on an event loop.
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            lines.append(record.getMessage())

    job_logger = logging.Logger("job 7")
    job_logger.addHandler(Job())

    async def work(manager: TaskQueueManager) -> None:
        await manager.ensure_job_resources(7)
        await manager.ensure_job_resources(7)
        await manager.log_async(logging.WARNING, "by hand")

    with caplog.at_level(logging.INFO, "natslease.contrib.antenna.nats_queue"):
        within(work, job_logger=job_logger)
        within(work, job_logger=job_logger)
    assert [line.split()[0] for line in lines] == ["Created", "by", "Reusing", "by"]
    assert "max_deliver 2" in lines[0]
    assert "pending 0, ack_pending 0" in lines[0]
    assert [r.getMessage() for r in caplog.records if "stream job_7" in r.getMessage()] == [
        lines[0],
        lines[2],
    ]
    within(lambda m: m.cleanup_job_resources(7), job_logger=job_logger)
    assert lines[-1] == "Job 7 consumer stats: pending 0, ack_pending 0, redelivered 0"


def test_a_job_logger_that_fails_fails_nothing(nats_url: str) -> None:
    job_logger = logging.Logger("job 7")

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the database is gone")

    job_logger.addHandler(Broken())
    within(lambda m: m.ensure_job_resources(7), job_logger=job_logger)


def test_a_failed_publish_is_logged_and_false(
    nats_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    # The stream is missing.
    assert within(lambda m: m.publish_task(7, {"id": "1"})) is False
    assert within(lambda m: m.publish_task(7, {"image_url": "no id"})) is False
    assert caplog.text.count("Failed to publish a task of job 7") == 2


def test_snapshots_of_all_jobs_and_of_nothing_else(nats_url: str) -> None:
    client = natslease.Client(nats_url)
    for i in range(300):  # more than a page
        client.queue(f"job_{i + 1}", subject=f"j.{i}", consumer=f"job-{i + 1}-consumer").ensure()
    for name in ("job_x", "job_", "myjob_1", "job_01", "other"):
        client.queue(name, subject=f"o.{name}").ensure()
    client.queue("job_2", subject="j.1", consumer="job-2-consumer").publish([b"{}"])

    async def work(manager: TaskQueueManager) -> list[dict[str, Any]]:
        snapshots = await manager.list_job_stream_snapshots()
        assert {s["num_redelivered"] for s in snapshots} == {None}
        await manager.populate_redelivered_counts(snapshots, concurrency=8)
        return snapshots

    snapshots = {s["job_id"]: s for s in within(work)}
    assert set(snapshots) == set(range(1, 301))
    created = snapshots[2].pop("created")
    assert isinstance(created, datetime)
    assert created.tzinfo is None
    assert abs((datetime.now() - created).total_seconds()) < 60  # noqa: DTZ005
    assert snapshots[2] == {
        "job_id": 2,
        "stream_name": "job_2",
        "messages": 1,
        "num_redelivered": 0,
    }
    client.close()


def test_dead_letters_are_told_once(site: Any, nats_url: str) -> None:
    site.NATS_TASK_TTR, site.NATS_MAX_DELIVER = 1, 1
    fill(2)

    async def work(manager: TaskQueueManager) -> list[list[str]]:
        assert len(await manager.reserve_tasks(7, 2, timeout=0.2)) == 2
        found: list[str] = []
        until = time.monotonic() + 20
        while len(found) < 2:
            assert time.monotonic() < until
            assert await manager.reserve_tasks(7, 1, timeout=0.2) == []
            found += await manager.get_dead_letter_image_ids(7, n=1)
        return [sorted(found), await manager.get_dead_letter_image_ids(7)]

    assert within(work) == [["100", "101"], []]
    assert within(lambda m: m.get_dead_letter_image_ids(99)) == []


def test_deleting_part_by_part(nats_url: str) -> None:
    fill(1)

    async def work(manager: TaskQueueManager) -> list[Any]:
        steps = [await manager.delete_consumer(7), await manager.get_consumer_state(7)]
        steps += [await manager.delete_stream(7), await manager.delete_stream(7)]
        return [*steps, await manager.delete_dlq_consumer(7)]

    assert within(work) == [True, None, True, True, True]


def test_tasks_are_made_of_the_class_that_the_settings_name(site: Any, nats_url: str) -> None:
    site.NATSLEASE_ANTENNA = {"TASK_CLASS": f"{__name__}.Schema"}
    fill(1)
    (task,) = within(lambda m: m.reserve_tasks(7, 1, timeout=0.2))
    assert type(task).__name__ == "Schema"
    assert task.reply_subject


def test_one_connection_whatever_the_number_of_managers(nats_server: Server, nats_url: str) -> None:
    fill(1)
    before = nats_server.varz()["total_connections"]
    for _ in range(20):
        within(lambda m: m.reserve_tasks(7, 1, timeout=0.05))
    assert nats_server.varz()["total_connections"] == before
    for _ in range(3):
        within(lambda m: m.get_consumer_state(7), nats_url)
    assert nats_server.varz()["total_connections"] <= before + 1
    nats_queue._clients.clear()
