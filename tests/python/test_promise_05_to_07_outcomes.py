"""Promises 5 to 7: nothing is lost, ack means acked, errors say what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import natslease
from faces import Face
from natslease.testing import Direction, Proxy, Server

MakeQueue = Callable[..., Any]


def drain(queue: Any, n: int, seconds: float = 20) -> list[bytes]:
    """Acknowledges n tasks and returns their data."""
    data: list[bytes] = []
    deadline = time.monotonic() + seconds
    while len(data) < n:
        assert time.monotonic() < deadline, f"{len(data)} of {n}"
        with suppress(natslease.Unavailable):
            batch = queue.reserve(n - len(data), wait=1)
            for lease, result in zip(batch, queue.ack(batch), strict=True):
                if result.status == "settled":
                    data.append(lease.data)
    return data


def test_promise_5_tasks_that_come_late_go_to_the_next(face: Face, nats_server: Server) -> None:
    with Proxy(nats_server.url) as proxy:
        queue = face.client(proxy.url, silence_timeout=5).queue("tasks", max_deliver=1)
        queue.ensure()
        queue.publish([b"x"])
        proxy.stall(Direction.FROM_SERVER)
        with pytest.raises((natslease.DeadlineExceeded, natslease.Unavailable)):
            queue.reserve(1, timeout=0.3)
        proxy.restore()
        (lease,) = queue.reserve(1, wait=2)
        assert lease.data == b"x"
        assert lease.attempt == 1


def test_promise_5_published_means_accepted(face: Face, nats_server: Server) -> None:
    with Proxy(nats_server.url) as proxy:
        queue = face.client(proxy.url, timeout=10).queue("tasks")
        queue.ensure()
        threading.Timer(0.05, proxy.cut).start()
        report = queue.publish([b"%d" % i for i in range(50_000)])
        assert not report.failed, report.failed[0].error  # what the cut left open was sent again
        stored = queue.info().messages
        assert stored == len(report.accepted) + len({r.seq for r in report.duplicates} - {
            r.seq for r in report.accepted
        })  # fmt: skip
        assert stored == 50_000


def test_promise_5_a_killed_process_loses_its_leases_only_until_ack_wait(nats_url: str) -> None:
    queue = natslease.Client(nats_url).queue("tasks", ack_wait=1, max_deliver=5)
    queue.ensure()
    queue.publish([b"%d" % i for i in range(100)])
    script = """
import sys, time
import natslease
queue = natslease.Client(sys.argv[1]).queue("tasks")
queue.reserve(100)
print("reserved", flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, nats_url], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reserved\n"
        os.kill(process.pid, signal.SIGKILL)
    assert sorted(map(int, drain(queue, 100))) == list(range(100))


def test_promise_6_settled_means_that_the_server_has_it(make_queue: MakeQueue) -> None:
    queue = make_queue(tasks=100)
    results = queue.ack(queue.reserve(100))
    assert {r.status for r in results} == {"settled"}
    info = queue.info()
    assert (info.messages, info.num_ack_pending) == (0, 0)


def test_promise_6_unknown_when_the_server_is_silent(face: Face, nats_server: Server) -> None:
    queue = face.client(nats_server.url).queue("tasks", ack_wait=30)
    queue.ensure()
    queue.publish([b"a", b"b"])
    a, b = queue.reserve(2)
    with nats_server.frozen():
        (result,) = queue.ack([a], timeout=0.3)
        assert result.status == "unknown"
        assert result.error.outcome == "unknown"
        with pytest.raises((natslease.DeadlineExceeded, natslease.Unavailable)) as raised:
            b.ack(timeout=0.3)
        assert raised.value.outcome in ("unknown", "not_sent")
        assert not a.settled
    assert [r.status for r in queue.ack([a, b], timeout=10)] == ["settled", "settled"]


def test_promise_7_not_sent_is_safe_to_retry(face: Face, nats_server: Server) -> None:
    queue = face.client(nats_server.url).queue("tasks")
    queue.ensure()
    nats_server.kill()
    with suppress(natslease.Unavailable):  # it may or may not know already
        queue.info()
    with pytest.raises(natslease.Unavailable) as raised:
        queue.reserve(1)
    assert raised.value.outcome == "not_sent"
    assert raised.value.code in ("connect_failed", "circuit_open")


def test_promise_7_rejected_at_once(face: Face) -> None:
    config = """
authorization: { users: [{
  user: "worker", password: "w", permissions: { publish: { deny: ["$JS.API.STREAM.PURGE.>"] } }
}] }
"""
    with Server(config=config) as server:
        queue = face.client(server.url, user="worker", password="w").queue("tasks")
        queue.ensure()
        started = time.monotonic()
        with pytest.raises(natslease.PermissionDenied) as raised:
            queue.purge()
        assert time.monotonic() - started < 1
        assert raised.value.outcome == "rejected"
        assert queue.reserve(1) == []


def test_promise_7_storage_full(make_queue: MakeQueue) -> None:
    queue = make_queue(max_messages=3)
    report = queue.publish([b"%d" % i for i in range(5)])
    assert len(report.accepted) == 3
    assert all(isinstance(r.error, natslease.StorageFull) for r in report.failed)
    assert {r.error.outcome for r in report.failed} == {"rejected"}


def test_promise_7_without_jetstream(face: Face) -> None:
    with Server(jetstream=False) as server:
        queue = face.client(server.url).queue("tasks")
        for call in (queue.ensure, queue.info, queue.purge):
            started = time.monotonic()
            with pytest.raises(natslease.QueueUnavailable):
                call(timeout=5)
            assert time.monotonic() - started < 2


def test_promise_7_an_error_explains_itself(face: Face, nats_server: Server) -> None:
    client = face.client(nats_server.url)
    client.ping()
    with nats_server.frozen(), pytest.raises(natslease.Error) as raised:
        client.ping(timeout=3)
    assert raised.value.operation == "ping"
    text = raised.value.explain()
    assert str(raised.value) in text
    assert "ago" in text
