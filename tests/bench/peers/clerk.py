"""The process that enqueues for a row, and answers questions: a JSON command a line.

python -m peers.clerk              obeys
python -m peers.clerk --worker     becomes a worker
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from .peer import AsyncProducer, Peer, Producer
from .rows import ROWS, load
from .setting import Reader, Setting, task

T = TypeVar("T")
PATIENCE = 5  # seconds: longer than any call takes with a broker that works


class _AtOnce:
    """A synchronous producer behind the interface of the other."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def publish(self, payload: bytes, count: int) -> None:
        self._producer.publish(payload, count)

    async def close(self) -> None:
        self._producer.close()


def _at_once(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that awaits nothing: there is no event loop."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("a synchronous peer waits for an event loop")


class Clerk:
    """Carries commands out."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._producer: AsyncProducer | None = None

    async def obey(self, command: dict[str, Any]) -> Any:
        """The answer to one command."""
        operation = getattr(self, f"_{command.pop('op')}")
        return await operation(**command)

    async def _opened(self) -> AsyncProducer:
        if self._producer is None:
            if self._peer.row.loop:
                self._producer = await self._peer.open_in_loop()
            else:
                self._producer = _AtOnce(self._peer.open())
        return self._producer

    async def _ready(self) -> None:
        """All is imported."""

    async def _prepare(self) -> None:
        self._peer.prepare()
        await self._opened()

    async def _left(self) -> int:
        return self._peer.left()

    async def _enqueue(self, count: int, seconds: float) -> list[int]:
        """Nanoseconds of enqueueing so many tasks one by one, or as many as there is time for."""
        producer, times, ends = await self._opened(), [], time.monotonic() + seconds
        for number in range(count):
            payload = task(number).encode()
            began = time.perf_counter_ns()
            await producer.publish(payload, 1)
            times.append(time.perf_counter_ns() - began)
            if time.monotonic() > ends:
                break
        return times

    async def _fill(self, count: int) -> int:
        """Nanoseconds of enqueueing so many tasks in the fastest way that there is."""
        producer, payload = await self._opened(), task(0).encode()
        began = time.perf_counter_ns()
        await producer.publish(payload, count)
        return time.perf_counter_ns() - began

    async def _ping(self, count: int) -> list[int]:
        """Nanoseconds from before a task is enqueued until an idle worker has it."""
        producer, times = await self._opened(), []
        with Reader(self._peer.setting.fifo) as reader:
            for number in range(1000, 1000 + count):
                await producer.publish(task(number).encode(), 1)
                taken = reader.next(PATIENCE)
                if taken is None or taken.number != number:
                    raise RuntimeError(f"task {number} was not taken: {taken}")
                times.append(taken.taken - taken.enqueued)
                time.sleep(0.005)  # noqa: ASYNC251 (the worker goes back to waiting)
        return times

    async def _call(self, number: int) -> dict[str, Any]:
        """How long it takes to enqueue a task, connecting first unless that was done."""
        payload, began, error = task(number).encode(), time.monotonic(), ""
        try:
            await (await self._opened()).publish(payload, 1)
        except Exception as failure:  # noqa: BLE001 (whatever a peer raises)
            error = type(failure).__name__
        return {"took": time.monotonic() - began, "error": error}

    async def _fork(self, count: int) -> str:
        """Whether a forked child and its parent can go on enqueueing at the same time, each so
        many tasks more."""
        producer, payload = await self._opened(), task(0).encode()
        await producer.publish(payload, 1)
        pid = os.fork()
        signal.alarm(PATIENCE)  # who hangs is ended by it
        try:
            for _ in range(count):
                await producer.publish(payload, 1)
        except Exception:  # noqa: BLE001 (whatever a peer raises)
            if pid:
                return "no: the parent fails"
            os._exit(1)
        if not pid:
            os._exit(0)
        signal.alarm(2 * PATIENCE)
        _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 (nothing else is to go on)
        signal.alarm(0)
        if not status:
            return "yes"
        return "no: the child " + ("hangs" if os.WIFSIGNALED(status) else "fails")


async def _serve_in_loop(clerk: Clerk) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await clerk.obey(json.loads(line))), flush=True)


def main() -> None:
    peer: Peer = load(Setting.here().row)
    if "--worker" in sys.argv:
        peer.work()
    elif ROWS[Setting.here().row].loop:
        asyncio.run(_serve_in_loop(Clerk(peer)))
    else:
        clerk = Clerk(peer)
        for line in sys.stdin:
            print(json.dumps(_at_once(clerk.obey(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
