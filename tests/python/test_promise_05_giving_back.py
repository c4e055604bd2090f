"""Being given back never wears a task out, and no stale holder disturbs another's lease."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import natslease
from natslease import Message
from natslease.fleet import Fleet, Identity
from natslease.testing import Server

TASKS = 1_000
ROUNDS = 5
HELD = 50  # by each process that is killed or frozen
OPTIONS = {
    "ack_wait": 2.0,
    "max_deliver": 2,
    "max_ack_pending": 2 * TASKS,
    "dead_letters": "dead",
}

# Takes tasks on their first attempt: to be killed or frozen uses one up, and there are two. When it
# goes on it tries all that a stale holder could do to another's lease.
HOLDER = f"""
import json, sys, natslease
queue = natslease.Client(sys.argv[1]).queue("tasks", **{OPTIONS})
held = []
while len(held) < {HELD}:
    batch = queue.reserve({HELD} - len(held), wait=5)
    queue.release([lease for lease in batch if lease.attempt == 2])
    held += [lease for lease in batch if lease.attempt == 1]
print(json.dumps([lease.id for lease in held]), flush=True)
sys.stdin.readline()
hows = ["nak", "release", "extend", "term"]
print(json.dumps([r.status for how in hows for r in getattr(queue, how)(held)]), flush=True)
"""


class Holder:
    """A process that holds tasks."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> list[str]:
        assert self.process.stdout is not None
        answer: list[str] = json.loads(self.process.stdout.readline())
        return answer

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


async def cancelled_takers(url: str) -> None:
    """Half of many reserves are cancelled, wherever they are; the rest give back what they took."""
    async with natslease.AsyncClient(url, name="cancelled") as client:
        queue = client.queue("tasks", **OPTIONS)  # type: ignore[arg-type]
        takers = [asyncio.ensure_future(queue.reserve(40, wait=0.5)) for _ in range(20)]
        await takers[0]
        for taker in takers[1::2]:
            taker.cancel()
        for batch in await asyncio.gather(*takers, return_exceptions=True):
            if isinstance(batch, list):
                results = await queue.release(batch)
                assert {r.status for r in results} <= {"settled"}
            else:
                assert isinstance(batch, asyncio.CancelledError)


def stopped_taker(url: str) -> None:
    """A loop over tasks that is left in the middle of one."""
    with natslease.Client(url, name="stopped") as client:
        leases = client.queue("tasks", **OPTIONS).consume(100, wait=1)  # type: ignore[arg-type]
        try:
            for lease in leases:
                with lease:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            leases.close()  # type: ignore[attr-defined]


def fenced_taker(url: str, slot: str) -> None:
    """A worker whose place a newer one takes: while it waits, and while it holds tasks."""
    with (
        natslease.Client(url, name="fenced") as old,
        natslease.Client(url, name="fencing") as new,
        ThreadPoolExecutor() as pool,
    ):
        worker = Fleet(old).join(Identity("takers", slot=slot))
        queue = old.queue("tasks", **OPTIONS)  # type: ignore[arg-type]
        held = queue.reserve(100, wait=5)
        empty = old.queue("empty")
        empty.ensure()
        waiting = pool.submit(empty.reserve, 1, wait=15, timeout=20)
        Fleet(new).join(Identity("takers", slot=slot)).leave()
        with pytest.raises(natslease.Superseded):
            waiting.result()
        with pytest.raises(natslease.Superseded):
            queue.reserve(1)
        assert worker.superseded
        assert {r.status for r in queue.release(held)} == {"settled"}


def take_all(queue: Any) -> dict[str, Any]:
    """Holds every task, each once."""
    held: dict[str, Any] = {}
    while len(held) < TASKS:
        batch = queue.reserve(TASKS - len(held), wait=10)
        assert batch, f"{TASKS - len(held)} are missing"
        queue.keep(batch)
        for lease in batch:
            assert lease.id not in held
            held[lease.id] = lease
    return held


def test_promise_5_giving_back_wears_nothing_out(nats_server: Server) -> None:
    url = nats_server.url
    with natslease.Client(url, timeout=20) as client:
        queue = client.queue("tasks", **OPTIONS)  # type: ignore[arg-type]
        queue.ensure()
        ids = {f"task {i}" for i in range(TASKS)}
        queue.publish([Message(b"x", id=name) for name in ids])
        for number in range(ROUNDS):
            with Holder(url) as killed, Holder(url) as frozen:
                assert not set(killed.read()) & set(frozen.read())
                killed.process.kill()
                frozen.process.send_signal(signal.SIGSTOP)
                asyncio.run(cancelled_takers(url))
                stopped_taker(url)
                fenced_taker(url, slot=str(number))
                held = take_all(queue)
                assert set(held) == ids
                frozen.process.send_signal(signal.SIGCONT)
                frozen.process.stdin.write("\n")  # type: ignore[union-attr]
                frozen.process.stdin.flush()  # type: ignore[union-attr]
                assert frozen.read() == ["expired"] * 4 * HELD
            assert queue.info().num_ack_pending == TASKS
            results = queue.release(held.values())
            assert {r.status for r in results} == {"settled"}
        held = take_all(queue)
        assert {(r.status, r.late) for r in queue.ack(held.values())} == {("settled", False)}
        assert queue.dead_letters() == []
        assert queue.info().messages == 0
