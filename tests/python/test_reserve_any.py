"""Tasks from any of many queues."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

import natslease
from faces import Face

MakeQueue = Callable[..., Any]

pytestmark = pytest.mark.conformance


def test_tasks_come_from_wherever_they_are(client: Any, make_queue: MakeQueue) -> None:
    queues = [make_queue(f"q{i}", tasks=2 * (i % 4 == 0)) for i in range(12)]
    batch = client.reserve_any(queues, 64, wait=2)
    assert sorted(lease.queue.stream for lease in batch) == ["q0", "q0", "q4", "q4", "q8", "q8"]
    assert batch.missing == []
    assert batch.errors == {}
    for lease in batch:
        lease.ack()
    empty = client.reserve_any(queues, 64)
    assert empty == []
    assert empty.retry_after >= 0


def test_never_more_than_asked(client: Any, make_queue: MakeQueue) -> None:
    queues = [make_queue(f"q{i}", tasks=10) for i in range(5)]
    seen = 0
    while batch := client.reserve_any(queues, 7, wait=1):
        assert len(batch) <= 7
        seen += len(batch)
        for lease in batch:
            lease.ack()
    assert seen == 50


def test_missing_queues_stand_beside_the_leases(client: Any, make_queue: MakeQueue) -> None:
    here, gone = make_queue("here", tasks=1), client.queue("gone")
    batch = client.reserve_any([gone, here], 5, wait=2)
    assert [lease.queue.stream for lease in batch] == ["here"]
    # Tasks are returned before all queues have been looked at; "empty" is not.
    empty = client.reserve_any([gone, here], 5)
    assert empty == []
    assert [queue.stream for queue in empty.missing] == ["gone"]


def test_failing_queues_stand_beside_the_leases(client: Any, make_queue: MakeQueue) -> None:
    full, good = make_queue("full", tasks=2, max_ack_pending=1), make_queue("good")
    full.reserve(1)
    deadline = time.monotonic() + 10
    while True:  # whether a queue is saturated is asked once per interval
        batch = client.reserve_any([full, good], 5, wait=0.3)
        assert batch == []
        if batch.errors:
            break
        assert time.monotonic() < deadline
    ((queue, error),) = batch.errors.items()
    assert queue.stream == "full"
    assert isinstance(error, natslease.Saturated)


def test_an_error_when_all_queues_are_missing(client: Any) -> None:
    with pytest.raises(natslease.QueueNotFound):
        client.reserve_any([client.queue("a"), client.queue("b")], 5)


def test_a_task_of_any_queue_ends_the_wait(
    client: Any, make_queue: MakeQueue, nats_url: str
) -> None:
    queues = [make_queue(f"q{i}") for i in range(20)]
    publisher = natslease.Client(nats_url, name="publisher").queue("q13")
    threading.Timer(0.5, publisher.publish, [[b"x"]]).start()
    (lease,) = client.reserve_any(queues, 5, wait=10)
    assert lease.queue.stream == "q13"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (([],), natslease.ConfigError, "queues is empty"),
        ((["q"],), TypeError, "item 0 is str"),
        ((None, 0), natslease.ConfigError, "n is 0"),
        ((None, "1"), TypeError, "n: is str"),
    ],
)
def test_bad_input(
    client: Any, arguments: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    queues, *rest = arguments
    with pytest.raises(error, match=text):
        client.reserve_any([client.queue("q")] if queues is None else queues, *rest)


def test_queues_of_other_connections_are_refused(face: Face, client: Any, nats_url: str) -> None:
    other = face.client(nats_url, name="other")
    with pytest.raises(natslease.ConfigError, match="other options"):
        client.reserve_any([other.queue("q")])
    assert cast("Any", other).stats().connected is False
