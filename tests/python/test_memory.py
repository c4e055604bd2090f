"""Queues in memory; that they are as a server's, the tests marked ``conformance`` show."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import natslease
from natslease._native import Native
from natslease.fleet import Fleet
from natslease.testing import Memory

# What only the real core has: the process's own business.
_ONLY_NATIVE = {"fork_begin", "fork_end", "give_back", "tickets"}
# What can only be asked of a fleet, which queues in memory do not have.
_OF_A_FLEET = {
    "ask_fleet",
    "forget_member",
    "join_fleet",
    "leave_fleet",
    "member_superseded",
    "record_fleet",
    "update_member",
}


def make(memory: Memory, *, tasks: int = 0, **options: object) -> natslease.Queue:
    queue = memory.client().queue("tasks", **options)  # type: ignore[arg-type]
    queue.ensure()
    queue.publish([b"%d" % i for i in range(tasks)])
    return queue


def test_it_has_all_that_clients_ask_for() -> None:
    asked = set(Native.__slots__) - _ONLY_NATIVE - _OF_A_FLEET
    assert asked <= set(dir(Memory()._native))
    with pytest.raises(natslease.ConfigError, match="no fleet"):
        Fleet(Memory().client())


def test_clients_of_one_memory_share_queues() -> None:
    memory = Memory()
    make(memory, tasks=1)
    assert len(memory.client().queue("tasks").reserve(1)) == 1
    with pytest.raises(natslease.QueueNotFound):
        Memory().client().queue("tasks").reserve(1)


def test_the_clock_moves_on() -> None:
    memory = Memory()
    queue = make(memory, tasks=1, ack_wait=300, max_deliver=2)
    (first,) = queue.reserve(1)
    memory.advance(301)
    (second,) = queue.reserve(1)
    assert (second.data, second.attempt) == (b"0", 2)
    with pytest.raises(natslease.LeaseExpired):
        first.nak()
    assert first.ack().late is True


def test_a_kept_lease_does_not_run_out() -> None:
    memory = Memory()
    queue = make(memory, tasks=1, ack_wait=30)
    (lease,) = queue.reserve(1)
    lease.keep(max_hold=600)
    memory.advance(500)
    assert queue.reserve(1) == []
    assert lease.ack().late is False


def test_an_outage() -> None:
    memory = Memory()
    queue = make(memory, tasks=1)
    with memory.failing():
        with pytest.raises(natslease.ConnectFailed) as raised:
            queue.reserve(1)
        assert raised.value.outcome == "not_sent"
    with memory.failing(natslease.CircuitOpen("open", retry_after=2.0)):
        with pytest.raises(natslease.CircuitOpen) as opened:
            queue.publish([b"x"])
        assert opened.value.retry_after == 2.0
    assert len(queue.reserve(5)) == 1


def test_a_task_ends_the_wait_of_a_thread() -> None:
    queue = make(Memory())
    publisher = threading.Timer(0.1, queue.publish, [[b"x"]])
    publisher.start()
    started = time.monotonic()
    assert [lease.data for lease in queue.reserve(1, wait=30)] == [b"x"]
    assert time.monotonic() - started < 20
    publisher.join()


def test_event_loops_wait_and_cancel() -> None:
    memory = Memory()
    make(memory)

    async def main() -> None:
        queue = memory.async_client().queue("tasks")
        waiting = [asyncio.create_task(queue.reserve(1, wait=30)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        await queue.publish([b"1", b"2", b"3"])
        taken = [batch[0] for batch in await asyncio.gather(*waiting[1:])]
        for lease in taken:
            await lease.ack()
        (last,) = await queue.reserve(5)
        assert {last.data, *(lease.data for lease in taken)} == {b"1", b"2", b"3"}

    for _ in range(2):
        asyncio.run(main())
        memory.client().queue("tasks").purge()


def test_options_are_checked_as_ever() -> None:
    client = Memory().client()
    with pytest.raises(natslease.ConfigError, match="stream"):
        client.queue("a b")
    with pytest.raises(natslease.ConfigError, match="timeout"):
        Memory().client(timeout=-1)
