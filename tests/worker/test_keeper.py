"""Kept leases, while C code holds the interpreter's lock for longer than ``ack_wait``."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import children
import natslease

ACK_WAIT = 1.0
# As long as several ack_waits.
BUSY = 3

# Unlike CDLL, PyDLL does not let go of the interpreter's lock: no other Python code runs meanwhile.
_libc = ctypes.PyDLL(None)

# Takes what it can get, and says so: the delivery's number, and when it came.
_OTHER = f"""
import sys, time
import natslease
queue = natslease.Client(sys.argv[1], timeout=10.0).queue("tasks", ack_wait={ACK_WAIT})
print("ready", flush=True)
while not (batch := queue.reserve(1, wait=1.0)):
    pass
print(batch[0].attempt, time.monotonic(), flush=True)
"""


@pytest.fixture
def lease(make_queue: Callable[..., Any]) -> Any:
    """A lease that runs out after ``ACK_WAIT``."""
    (lease,) = make_queue(ack_wait=ACK_WAIT, tasks=1).reserve(1, wait=5)
    return lease


@contextmanager
def other_taker(url: str) -> Iterator[Any]:
    """Another process that waits for the task."""
    with children.running(_OTHER, url) as process:
        assert children.line(process) == "ready"
        yield process


def hold_the_lock(seconds: int) -> None:
    """Computes, as extensions do that do not care about other threads."""
    began = time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        _libc.usleep(int(left * 1e6))


def taken_after(process: Any, began: float) -> float:
    """When, after began, the other process got the task."""
    attempt, at = children.line(process).split()
    assert attempt == "2"
    return float(at) - began


def test_a_kept_lease_outlasts_a_call_that_holds_the_lock(nats_url: str, lease: Any) -> None:
    with other_taker(nats_url) as other:
        lease.keep(max_hold=60.0)
        hold_the_lock(BUSY)
        assert lease.time_left > 0
        result = lease.ack()
        assert (result.status, result.late) == ("settled", False)
        time.sleep(2 * ACK_WAIT)  # would be the next delivery
        assert other.poll() is None
    info = lease.queue.info()
    assert (info.num_ack_pending, info.num_redelivered) == (0, 0)


def test_the_lease_would_have_run_out(nats_url: str, lease: Any) -> None:
    began = time.monotonic()
    with other_taker(nats_url) as other:
        hold_the_lock(BUSY)
        assert taken_after(other, began) < BUSY
        with pytest.raises(natslease.LeaseExpired):
            lease.extend()


def test_max_hold_ends_it_while_the_lock_is_held(nats_url: str, lease: Any) -> None:
    began = time.monotonic()
    lease.keep(max_hold=1.5)
    with other_taker(nats_url) as other:
        hold_the_lock(BUSY)
        assert 1.5 < taken_after(other, began) < BUSY + 5


def test_a_handler_that_hangs_loses_its_lease(nats_url: str, lease: Any) -> None:
    lease.keep(max_hold=60.0, heartbeat=1.0)
    with other_taker(nats_url) as other:
        for _ in range(20):  # for two ack_waits it is at work
            time.sleep(0.1)
            lease.beat()
        assert lease.time_left > 0
        began = time.monotonic()
        hold_the_lock(BUSY)
        assert taken_after(other, began) > 0.5
        assert lease.queue._client.stats().kept == 0


def test_a_beat_is_of_the_leases_it_names(make_queue: Callable[..., Any]) -> None:
    queue = make_queue(ack_wait=ACK_WAIT, tasks=2)
    first, second = queue.reserve(2, wait=5)
    queue.keep([first, second], heartbeat=1.0)
    for _ in range(10):
        time.sleep(0.1)
        queue.beat()
    assert min(first.time_left, second.time_left) > 0
    again: Any = []
    while not again:
        queue.beat([first])
        queue.beat([])
        again = queue.reserve(1, wait=0.1)
    assert again[0].seq == second.seq
    assert first.time_left > 0
    with pytest.raises(natslease.ConfigError, match="heartbeat"):
        queue.keep([first], heartbeat=-1.0)
