"""Tasks straight from NATS: which queues, what becomes of results, and the fleet."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import natslease
from natslease import Message
from natslease.fleet import Fleet, Identity
from natslease.testing import Server
from natslease.worker import ExitCode, Failed, QueueSource, Task, Worker
from workerprocess import Workers


@pytest.fixture
def client(nats_server: Server) -> Iterator[natslease.Client]:
    with natslease.Client(nats_server.url, timeout=10) as client:
        yield client


def queue_of(client: natslease.Client, stream: str, n: int) -> natslease.Queue:
    queue = client.queue(stream, subject=f"{stream}.tasks", consumer=f"{stream}-c", ack_wait=5)
    queue.ensure()
    queue.publish([Message(b"%d" % i, id=f"{stream}-{i}") for i in range(n)])
    return queue


def test_a_pattern_finds_queues_that_come_and_go(client: natslease.Client) -> None:
    first = queue_of(client, "job_1", 5)
    queue_of(client, "other", 5)
    seen: list[str] = []
    started = time.monotonic()

    def handle(batch: list[Task]) -> None:
        seen.extend(task.job for task in batch)
        if seen.count("job_1") == 5 and not seen.count("job_2"):
            first.delete()
            queue_of(client, "job_2", 3)
        if seen.count("job_2") == 3 or time.monotonic() > started + 60:
            worker.stop()

    worker = Worker(QueueSource(client, "job_*", refresh=0.2), handle, wait=0.2)
    assert worker.run() == ExitCode.DONE
    assert sorted(seen) == ["job_1"] * 5 + ["job_2"] * 3


def test_results_are_published_before_tasks_are_acknowledged(client: natslease.Client) -> None:
    queue = queue_of(client, "job_1", 4)
    results = client.queue("results")
    results.ensure()

    def handle(batch: list[Task]) -> Iterator[Any]:
        for task in batch:
            if task.id.endswith("1") and task.attempt == 1:
                yield {"no": object()}  # no JSON: it has failed, and is tried again
            elif task.id.endswith("2"):
                yield Failed(task, "never", retry=False)
            else:
                yield {"of": task.id}

    source = QueueSource(client, [queue], results=results)
    assert Worker(source, handle, wait=0.3, until_empty=True).run() == ExitCode.DONE
    published = {lease.id: json.loads(lease.data) for lease in results.reserve(10)}
    assert published == {f"job_1-{i}": {"of": f"job_1-{i}"} for i in (0, 1, 3)}
    assert queue.info().messages == 0


def test_a_queue_that_is_not_there_is_waited_for(client: natslease.Client) -> None:
    with pytest.raises(natslease.ConfigError, match="queues"):
        QueueSource(client, []).open()
    with pytest.raises(TypeError, match="one queue"):
        QueueSource(client, client.queue("x"))  # type: ignore[arg-type]
    with pytest.raises(natslease.QueueNotFound):
        QueueSource(client, [client.queue("x")]).reserve(1)


def test_a_newer_worker_fences_an_older_one_and_the_fleet_knows_who_has_what(
    client: natslease.Client, nats_server: Server, tmp_path: Path
) -> None:
    queue = client.queue("tasks", ack_wait=3.0, max_deliver=2, dead_letters="dead")
    queue.ensure()
    queue.publish([Message(b"%d" % i, id=str(i)) for i in range(30)])
    fleet = Fleet(client, heartbeat=1.0)
    options = {"batch_size": 10, "wait": 0.5}
    workers = Workers(tmp_path, url=nats_server.url, fleet=True, worker=options)
    with workers.start(handler="stuck") as old:
        old.await_output("stuck")
        until = time.monotonic() + 20
        while (history := fleet.task("tasks", "5")) is None or history.holder is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert history.holder == Identity("test")
        with workers.start(worker={**options, "until_empty": True, "wait": 4.0}) as new:
            new.await_output("registered")
            assert old.wait() == ExitCode.FENCED
            assert new.wait() == ExitCode.DONE
    assert set(workers.done()) == {str(i) for i in range(30)}
    assert queue.info().messages == 0
    assert queue.dead_letters() == []
    (info,) = fleet.workers()
    assert info.left
