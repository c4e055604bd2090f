"""What it costs to be a worker whose tasks are tracked.

Both sides take and settle the same tasks in turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest

import natslease
from natslease.fleet import Fleet, Identity
from natslease.testing import Server

BATCH = 64
BATCHES = 20
ROUNDS = 30
# The aim is 1.03; that BenchmarkTracking in core/fleet can tell, and a quiet machine. Here
# it is about what would be felt.
MOST = 1.25


def drain(queue: Any, n: int, mark: str) -> float:
    """How long it takes to reserve and acknowledge n tasks."""
    queue.publish([natslease.Message(b"x" * 230, id=f"{mark}.{i}") for i in range(n)])
    began = time.perf_counter()
    while n:
        batch = queue.reserve(BATCH, wait=5)
        queue.ack(batch)
        n -= len(batch)
    return time.perf_counter() - began


def compare(server: Server, tracked: natslease.Client) -> float:
    """The tracked side's time for the same work, as a multiple of the other's."""
    plain = natslease.Client(server.url, timeout=30.0, name="plain")
    queues = [client.queue(f"of_{i}", ack_wait=60) for i, client in enumerate((plain, tracked))]
    for queue in queues:
        queue.ensure()
        drain(queue, BATCH, "warm")
    ratios = []
    for i in range(ROUNDS):
        took = {q.stream: drain(q, BATCH * BATCHES, str(i)) for q in queues[:: (-1) ** i]}
        ratios.append(took["of_1"] / took["of_0"])
    plain.close()
    return statistics.median(ratios)


def test_tracking_costs_little(nats_server: Server) -> None:
    client = natslease.Client(nats_server.url, timeout=30.0, name="tracked")
    fleet = Fleet(client)
    with fleet.join("moths"):
        assert compare(nats_server, client) < MOST
        written, dropped = fleet.flush()
    assert (written > 0, dropped) == (True, 0)
    history = fleet.history("of_1", limit=100_000)
    assert len(history) == BATCH * (BATCHES * ROUNDS + 1)
    assert {task.state for task in history} == {"done"}
    assert fleet.holders("of_1")[0].done == len(history)
    client.close()


def test_nothing_where_the_stream_of_events_is_away(nats_server: Server) -> None:
    client = natslease.Client(nats_server.url, timeout=30.0, name="tracked")
    other = natslease.Client(nats_server.url, timeout=30.0)
    # Another stream has its subject: it can neither be written to nor be made.
    other.queue("taken", subject="natslease_events.of_1", max_messages=1).ensure()
    fleet = Fleet(client)
    with pytest.raises(natslease.ServerError):
        fleet.ensure()
    worker = fleet.join(Identity("moths"))
    assert compare(nats_server, client) < MOST
    written, dropped = fleet.flush()
    assert dropped > 0
    assert written <= 1  # what the other stream has taken
    worker.leave()
    client.close()
    other.close()
