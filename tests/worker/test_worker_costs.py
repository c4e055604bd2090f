"""What a worker costs, beside the bare loop of reserve and ack."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

import natslease
from natslease.testing import Server
from natslease.worker import Done, QueueSource, Worker
from natslease.worker._task import Outcome, Status

TASKS = 10_000
BATCH = 64


@pytest.fixture
def queue(nats_server: Server) -> Iterator[natslease.Queue]:
    with natslease.Client(nats_server.url, timeout=10) as client:
        queue = client.queue("tasks", ack_wait=60, max_ack_pending=5_000)
        queue.ensure()
        yield queue


def fill(queue: natslease.Queue) -> None:
    assert len(queue.publish([b"x" * 230] * TASKS).accepted) == TASKS


def bare(queue: natslease.Queue) -> float:
    fill(queue)
    began = time.perf_counter()
    done = 0
    while done < TASKS:
        batch = queue.reserve(BATCH, wait=1)
        queue.ack(batch)
        done += len(batch)
    return TASKS / (time.perf_counter() - began)


class Counting(QueueSource):
    """Stops its worker when all is settled."""

    worker: Worker
    settled = 0

    def settle(self, outcomes: Sequence[Outcome]) -> list[Status]:
        statuses = super().settle(outcomes)
        assert all(isinstance(outcome, Done) for outcome in outcomes)
        self.settled += statuses.count("settled")
        if self.settled >= TASKS:
            self.worker.stop()
        return statuses


def working(queue: natslease.Queue) -> float:
    fill(queue)
    source = Counting(queue._client, [queue])  # type: ignore[arg-type]
    source.worker = Worker(source, lambda batch: None, batch_size=BATCH, wait=0.01)
    began = time.perf_counter()
    assert source.worker.run() == 0
    took = time.perf_counter() - began
    assert source.settled == TASKS
    assert queue.info().messages == 0
    return TASKS / took


def test_a_worker_costs_little(queue: natslease.Queue) -> None:
    """In turn, and the best of each: what else the machine does only makes them slower."""
    pairs = [(bare(queue), working(queue)) for _ in range(6)]
    print(", ".join(f"{alone:,.0f}/s -> {worker:,.0f}/s" for alone, worker in pairs))
    alone, worker = (max(speeds) for speeds in zip(*pairs, strict=True))
    assert worker >= 0.7 * alone
