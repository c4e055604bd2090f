"""The Python sides of the benchmark.

Each runs in a process of its own, reads one JSON command a line and answers each with one line, as
natsgo does. What is common to all is written once: a side knows how to reserve, to acknowledge and
to publish, and the loops around that are the same.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from time import perf_counter_ns
from typing import Any, Protocol

CONSUMER = "workers"
PATIENCE = 30.0

Task = Any  # a message, as a library gives it


class Side(Protocol):
    """A library as synchronous code calls it."""

    def reserve(self, n: int) -> Sequence[Task]: ...
    def data(self, task: Task) -> bytes: ...
    def ack(self, tasks: Sequence[Task]) -> None: ...
    def publish(self, payload: bytes, count: int) -> None: ...
    def close(self) -> None: ...


class AsyncSide(Protocol):
    """A library as a coroutine calls it."""

    async def open(self, url: str, stream: str) -> None: ...
    async def reserve(self, n: int) -> Sequence[Task]: ...
    def data(self, task: Task) -> bytes: ...
    async def ack(self, tasks: Sequence[Task]) -> None: ...
    async def publish(self, payload: bytes, count: int) -> None: ...
    async def close(self) -> None: ...


class Natslease:
    """natslease, synchronous."""

    def __init__(self, url: str, stream: str) -> None:
        import natslease

        self._client = natslease.Client(url, timeout=PATIENCE)
        self._queue = self._client.queue(stream, consumer=CONSUMER)

    def reserve(self, n: int) -> Sequence[Task]:
        return self._queue.reserve(n, wait=1.0)

    def data(self, task: Task) -> bytes:
        data: bytes = task.data
        return data

    def ack(self, tasks: Sequence[Task]) -> None:
        if len(tasks) == 1:
            tasks[0].ack()
        elif any(result.status != "settled" for result in self._queue.ack(tasks)):
            raise RuntimeError("not acknowledged")

    def publish(self, payload: bytes, count: int) -> None:
        if self._queue.publish([payload] * count).failed:
            raise RuntimeError("not published")

    def close(self) -> None:
        self._client.close()


class AsyncNatslease:
    """natslease in an event loop."""

    async def open(self, url: str, stream: str) -> None:
        import natslease

        self._client = natslease.AsyncClient(url, timeout=PATIENCE)
        self._queue = self._client.queue(stream, consumer=CONSUMER)

    async def reserve(self, n: int) -> Sequence[Task]:
        return await self._queue.reserve(n, wait=1.0)

    def data(self, task: Task) -> bytes:
        data: bytes = task.data
        return data

    async def ack(self, tasks: Sequence[Task]) -> None:
        if len(tasks) == 1:
            await tasks[0].ack()
        elif any(result.status != "settled" for result in await self._queue.ack(tasks)):
            raise RuntimeError("not acknowledged")

    async def publish(self, payload: bytes, count: int) -> None:
        if (await self._queue.publish([payload] * count)).failed:
            raise RuntimeError("not published")

    async def close(self) -> None:
        await self._client.close()


class NatsPy:
    """nats-py in its event loop."""

    async def open(self, url: str, stream: str) -> None:
        import nats

        self._stream = stream
        self._nc = await nats.connect(url, allow_reconnect=False)
        self._js = self._nc.jetstream(timeout=PATIENCE)
        self._subscription = await self._js.pull_subscribe_bind(CONSUMER, stream)

    async def reserve(self, n: int) -> Sequence[Task]:
        messages: Sequence[Task] = await self._subscription.fetch(n, timeout=PATIENCE)
        return messages

    def data(self, task: Task) -> bytes:
        data: bytes = task.data
        return data

    async def ack(self, tasks: Sequence[Task]) -> None:
        if len(tasks) == 1:
            await tasks[0].ack_sync(timeout=PATIENCE)
        else:
            await asyncio.gather(*(task.ack_sync(timeout=PATIENCE) for task in tasks))

    async def publish(self, payload: bytes, count: int) -> None:
        if count == 1:
            await self._js.publish(self._stream, payload)
            return
        futures = [await self._js.publish_async(self._stream, payload) for _ in range(count)]
        for future in futures:
            await future

    async def close(self) -> None:
        await self._nc.close()


class Natsrpy:
    """natsrpy (Rust) in an event loop."""

    async def open(self, url: str, stream: str) -> None:
        import natsrpy

        self._stream = stream
        self._nc = natsrpy.Nats([url])
        await self._nc.startup()
        self._js = await self._nc.jetstream()
        self._consumer = await (await self._js.streams.get(stream)).consumers.get_pull(CONSUMER)

    async def reserve(self, n: int) -> Sequence[Task]:
        messages: Sequence[Task] = await self._consumer.fetch(n, expires=PATIENCE)
        return messages

    def data(self, task: Task) -> bytes:
        data: bytes = task.payload
        return data

    async def ack(self, tasks: Sequence[Task]) -> None:
        if len(tasks) == 1:
            await tasks[0].ack(double=True)
        else:
            await asyncio.gather(*(task.ack(double=True) for task in tasks))

    async def publish(self, payload: bytes, count: int) -> None:
        if count == 1:
            await self._js.publish(self._stream, payload, wait=True)
            return
        # As many at a time as nats-py and nats.go have by default.
        for start in range(0, count, 4_000):
            await asyncio.gather(
                *(
                    self._js.publish(self._stream, payload, wait=True)
                    for _ in range(min(4_000, count - start))
                )
            )

    async def close(self) -> None:
        await self._nc.shutdown()


class InThread:
    """An asynchronous side whose loop runs in a thread, called from synchronous code."""

    def __init__(self, side: AsyncSide, url: str, stream: str) -> None:
        self._side = side
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._wait(side.open(url, stream))

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(2 * PATIENCE)

    def reserve(self, n: int) -> Sequence[Task]:
        tasks: Sequence[Task] = self._wait(self._side.reserve(n))
        return tasks

    def data(self, task: Task) -> bytes:
        return self._side.data(task)

    def ack(self, tasks: Sequence[Task]) -> None:
        self._wait(self._side.ack(tasks))

    def publish(self, payload: bytes, count: int) -> None:
        self._wait(self._side.publish(payload, count))

    def close(self) -> None:
        self._wait(self._side.close())


class PerCall:
    """nats-py as a Django view calls it: a connection for each call, in async_to_sync.

    A batch's acks are as many calls, and none is confirmed.
    """

    def __init__(self, url: str, stream: str) -> None:
        from asgiref.sync import async_to_sync

        self._url = url
        self._stream = stream
        self._reserve = async_to_sync(self._reserve_async)
        self._ack = async_to_sync(self._ack_async)

    async def _connect(self) -> Any:
        import nats

        return await nats.connect(self._url, allow_reconnect=False)

    async def _reserve_async(self, n: int) -> Sequence[Task]:
        nc = await self._connect()
        try:
            subscription = await nc.jetstream().pull_subscribe_bind(CONSUMER, self._stream)
            messages: Sequence[Task] = await subscription.fetch(n, timeout=PATIENCE)
            return messages
        finally:
            await nc.close()

    async def _ack_async(self, subject: str) -> None:
        nc = await self._connect()
        try:
            await nc.publish(subject, b"+ACK")
            await nc.flush()
        finally:
            await nc.close()

    def reserve(self, n: int) -> Sequence[Task]:
        tasks: Sequence[Task] = self._reserve(n)
        return tasks

    def data(self, task: Task) -> bytes:
        data: bytes = task.data
        return data

    def ack(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self._ack(task.reply)

    def publish(self, payload: bytes, count: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is open."""


SYNC: dict[str, Callable[[str, str], Side]] = {
    "natslease": Natslease,
    "nats-py in a thread": lambda url, stream: InThread(NatsPy(), url, stream),
    "nats-py per call": PerCall,
    "natsrpy in a thread": lambda url, stream: InThread(Natsrpy(), url, stream),
}
ASYNC: dict[str, Callable[[], AsyncSide]] = {
    "natslease in a loop": AsyncNatslease,
    "nats-py in a loop": NatsPy,
    "natsrpy in a loop": Natsrpy,
}


class Answer:
    """The times of one command, in nanoseconds."""

    def __init__(self) -> None:
        self.reserve: list[int] = []
        self.read: list[int] = []
        self.ack: list[int] = []

    def add(self, n: int, tasks: Sequence[Task], size: int, times: Sequence[int]) -> None:
        """Notes when a reserve began and ended, all was read, the ack began and ended."""
        if len(tasks) != n or not size:
            raise RuntimeError(f"{len(tasks)} tasks of {size} bytes instead of {n}")
        began, reserved, read, settling, settled = times
        self.reserve.append(reserved - began)
        self.read.append(read - began)
        self.ack.append(settled - settling)


def crowd(side: Side, threads: int, count: int) -> int:
    """Nanoseconds in which threads reserve so many tasks, one after the other."""
    failures: list[BaseException] = []
    start = threading.Barrier(threads + 1)

    def work() -> None:
        try:
            start.wait()
            for _ in range(count // threads):
                if len(side.reserve(1)) != 1:
                    raise RuntimeError("no task")
        except BaseException as error:  # noqa: BLE001 (raised below)
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = perf_counter_ns()
    for worker in workers:
        worker.join()
    took = perf_counter_ns() - began
    if failures:
        raise failures[0]
    return took


def obey(side: Side, command: dict[str, Any]) -> dict[str, Any]:
    """Carries a command out."""
    count, n = command["count"], command["n"]
    if command["op"] == "crowd":
        return {"crowd": crowd(side, n, count)}
    if command["op"] == "publish":
        began = perf_counter_ns()
        side.publish(command["payload"].encode(), count)
        return {"publish": perf_counter_ns() - began}
    answer = Answer()
    for _ in range(count):
        began = perf_counter_ns()
        tasks = side.reserve(n)
        reserved = perf_counter_ns()
        size = sum([len(side.data(task)) for task in tasks])
        read = perf_counter_ns()
        settling = perf_counter_ns()
        side.ack(tasks)
        answer.add(n, tasks, size, (began, reserved, read, settling, perf_counter_ns()))
    return vars(answer)


async def obey_async(side: AsyncSide, command: dict[str, Any]) -> dict[str, Any]:
    """Carries a command out, awaiting."""
    count, n = command["count"], command["n"]
    if command["op"] == "publish":
        began = perf_counter_ns()
        await side.publish(command["payload"].encode(), count)
        return {"publish": perf_counter_ns() - began}
    answer = Answer()
    for _ in range(count):
        began = perf_counter_ns()
        tasks = await side.reserve(n)
        reserved = perf_counter_ns()
        size = sum([len(side.data(task)) for task in tasks])
        read = perf_counter_ns()
        settling = perf_counter_ns()
        await side.ack(tasks)
        answer.add(n, tasks, size, (began, reserved, read, settling, perf_counter_ns()))
    return vars(answer)


async def serve_async(side: AsyncSide, url: str, stream: str) -> None:
    """Obeys until there are no more commands; the loop runs meanwhile."""
    await side.open(url, stream)
    loop = asyncio.get_running_loop()
    read: Callable[[], Awaitable[str]] = lambda: loop.run_in_executor(None, sys.stdin.readline)  # noqa: E731
    while line := await read():
        print(json.dumps(await obey_async(side, json.loads(line))), flush=True)
    await side.close()


def main(name: str, url: str, stream: str) -> None:
    """Is one side."""
    if name in ASYNC:
        asyncio.run(serve_async(ASYNC[name](), url, stream))
        return
    side = SYNC[name](url, stream)
    for line in sys.stdin:
        print(json.dumps(obey(side, json.loads(line))), flush=True)
    side.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
