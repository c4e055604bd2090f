"""Promise 4: AsyncClient awaits a descriptor; what is cancelled or closed leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import json
import os
import random
import selectors
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

import natslease
from children import Child, connections, descriptors, python
from faces import new_event_loop
from natslease._native import native
from natslease.testing import Server

T = TypeVar("T")

ROUNDS = int(os.environ.get("NATSLEASE_CANCELS", "300"))
IN_FLIGHT = 500
# By which the longest stall of a loop may exceed that of an idle one, in seconds.
MAX_STALL = 0.02


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[Any]], Any]:
    """Runs a coroutine in a loop of its own."""

    def run_in(main: Any) -> Any:
        loop = new_event_loop(request.param)
        try:
            return loop.run_until_complete(main)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    return run_in


@asynccontextmanager
async def opened(server: Server, **options: Any) -> AsyncIterator[natslease.AsyncQueue]:
    async with natslease.AsyncClient(server.url, **{"timeout": 20.0, **options}) as client:
        queue = client.queue("tasks", ack_wait=600, max_ack_pending=100_000, max_deliver=1000)
        await queue.ensure()
        yield queue


def assert_nothing_is_left() -> None:
    """No ticket and no handle is, once what was given up has ended."""
    deadline = time.monotonic() + 10
    handles = importlib.import_module("natslease._natslease").NumHandles
    while (left := (native().tickets(), handles())) != (0, 0):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


async def hold_all(queue: natslease.AsyncQueue, n: int, within: float = 5) -> list[Any]:
    """All n tasks, each once: none is lost."""
    held: dict[bytes, natslease.AsyncLease] = {}
    deadline = time.monotonic() + within
    while len(held) < n and time.monotonic() < deadline:
        held.update({lease.data: lease for lease in await queue.reserve(n, wait=0.5)})
    assert len(held) == n
    return list(held.values())


def test_promise_4_several_loops_in_several_threads(nats_server: Server, run: Any) -> None:
    loops, each = 6, 40
    client = natslease.AsyncClient(nats_server.url, timeout=20)
    queue = client.queue("tasks")
    numbers = itertools.count()
    seen: list[bytes] = []
    failures: list[BaseException] = []
    before = descriptors()

    async def work() -> None:
        me = next(numbers)
        await queue.publish([b"%d %d" % (me, i) for i in range(each)])
        done = 0
        while done < each:
            batch = await queue.reserve(min(7, each - done), wait=5)
            assert {r.status for r in await queue.ack(batch)} == {"settled"}
            seen.extend(lease.data for lease in batch)
            done += len(batch)

    def run_work() -> None:
        try:
            run(work())
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            failures.append(error)

    run(queue.ensure())
    for _ in range(2):
        threads = [threading.Thread(target=run_work) for _ in range(loops)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    assert len(seen) == len(set(seen)) == 2 * loops * each
    assert client.stats().sessions_opened == 1
    run(client.close())
    assert_nothing_is_left()
    gc.collect()
    left = [name for name in descriptors().values() if name not in before.values()]
    assert not [name for name in left if "eventfd" in name]


def test_promise_4_nothing_polls(nats_server: Server) -> None:
    class Counting(selectors.DefaultSelector):
        selects = 0

        def select(self, timeout: float | None = None) -> Any:
            self.selects += 1
            return super().select(timeout)

    async def main() -> int:
        async with opened(nats_server, max_in_flight=1000) as queue:
            calls = [asyncio.ensure_future(queue.reserve(1, wait=3)) for _ in range(100)]
            await asyncio.sleep(0.5)
            before = selector.selects
            await asyncio.sleep(1)
            selects = selector.selects - before
            await queue.publish([b"x"] * 100)
            await asyncio.gather(*calls)
            return selects

    selector = Counting()
    loop = asyncio.SelectorEventLoop(selector)
    try:
        assert loop.run_until_complete(main()) < 10
    finally:
        loop.close()


def test_promise_4_a_pipe_where_there_is_no_eventfd(nats_server: Server) -> None:
    """A seccomp filter takes eventfd away from a process whose core is running already."""
    script = """
import asyncio, ctypes, os, platform, struct, sys
import natslease

natslease.Client(sys.argv[1]).ping()  # Go itself needs one, at its start
libc = ctypes.CDLL(None, use_errno=True)
eventfd2 = {"x86_64": 290, "aarch64": 19}[platform.machine()]
instructions = [  # load the number of the call; eventfd2: fail with ENOSYS; else: allow
    (0x20, 0, 0, 0),
    (0x15, 0, 1, eventfd2),
    (0x06, 0, 0, 0x00050000 | 38),
    (0x06, 0, 0, 0x7FFF0000),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *i) for i in instructions))
program = ctypes.create_string_buffer(struct.pack("HP", 4, ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0, "no_new_privs"
for_all_threads = 1
number = {"x86_64": 317, "aarch64": 277}[platform.machine()]
done = libc.syscall(number, 1, for_all_threads, program)
assert done == 0, os.strerror(ctypes.get_errno())

async def main():
    async with natslease.AsyncClient(sys.argv[1]) as client:
        queue = client.queue("tasks")
        await queue.ensure()
        await queue.publish([b"x"] * 500)
        async def work():
            (lease,) = await queue.reserve(1, wait=5)
            await lease.ack()
        for _ in range(5):
            await asyncio.gather(*(work() for _ in range(100)))
        return (await queue.info()).messages, pipes() - before

def pipes():
    count = 0
    for fd in range(100):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
        except FileNotFoundError:
            pass
    return count

before = pipes()
print(*asyncio.run(main()))
"""
    assert python(script, nats_server.url) == "0 2\n"


def test_promise_4_cancelled_reserves_lose_nothing(nats_server: Server, run: Any) -> None:
    n = 100

    async def main() -> None:
        async with opened(nats_server, max_queue_wait=10) as queue:
            await queue.publish([b"%d" % i for i in range(n)])
            typical, cancelled = 0.001, 0
            for _ in range(ROUNDS):
                began = time.perf_counter()
                calls = [
                    asyncio.ensure_future(queue.reserve(random.choice([1, 5, 50]), wait=0.2))
                    for _ in range(random.choice([1, 4]))
                ]
                await asyncio.sleep(random.choice([0, 1.5 * random.random() * typical]))
                for call in calls:
                    call.cancel()
                for batch in await asyncio.gather(*calls, return_exceptions=True):
                    if isinstance(batch, asyncio.CancelledError):
                        cancelled += 1
                        continue
                    assert not isinstance(batch, BaseException), batch
                    typical = 0.99 * typical + 0.01 * (time.perf_counter() - began)
                    assert {r.status for r in await queue.release(batch)} <= {"settled"}
            assert cancelled > ROUNDS / 10
            held = await hold_all(queue, n)
            assert {r.status for r in await queue.ack(held)} == {"settled"}
            info = await queue.info()
            assert (info.messages, info.num_ack_pending) == (0, 0)

    run(main())
    assert_nothing_is_left()


def test_promise_4_a_cancelled_ack_is_done_or_not(nats_server: Server, run: Any) -> None:
    size = 64

    async def main() -> None:
        outcomes = set()
        async with opened(nats_server, max_queue_wait=10) as queue:
            typical = 0.001
            for round_ in range(max(ROUNDS // 5, 20)):
                await queue.publish([b"%d" % i for i in range(size)])
                batch = await queue.reserve(size, wait=5)
                call = asyncio.ensure_future(queue.ack(batch))
                began = time.perf_counter()
                if round_ % 3 == 0:
                    await call
                    typical = 0.9 * typical + 0.1 * (time.perf_counter() - began)
                await asyncio.sleep(random.choice([0, random.random() * typical]))
                call.cancel()
                done = await asyncio.gather(call, return_exceptions=True)
                known = {lease.settled for lease in batch}
                assert known == {not isinstance(done[0], BaseException)}
                # All of them are acknowledged at the server, or none is.
                pending = -1
                while pending != (info := await queue.info()).num_ack_pending:
                    pending = info.num_ack_pending
                    await asyncio.sleep(0.01)
                assert pending in (0, size)
                outcomes.add((known.pop(), pending))
                # To do it again is right in any case.
                assert {r.status for r in await queue.ack(batch)} == {"settled"}
                assert (await queue.info()).messages == 0
        assert {(True, 0), (False, 0)} <= outcomes <= {(True, 0), (False, 0), (False, size)}

    run(main())
    assert_nothing_is_left()


TICKER = """
import asyncio, json, sys, threading, time

async def main():
    gaps, last = [], time.monotonic()
    reader = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
    while not reader.done():
        await asyncio.sleep(0.001)
        now = time.monotonic()
        gaps.append((now, now - last))
        last = now
    print(json.dumps(gaps))

print(flush=True)
asyncio.run(main())
"""


class Beside:
    """An idle loop in a process of its own."""

    def __enter__(self) -> Beside:
        self._process = subprocess.Popen(
            [sys.executable, "-c", TICKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        output, _err = self._process.communicate("end\n")
        self.gaps: list[tuple[float, float]] = json.loads(output)

    def longest(self, began: float, ended: float) -> float:
        return max(gap for at, gap in self.gaps if began <= at <= ended + 0.02)


def test_promise_4_a_loop_goes_on_while_calls_wait_for_a_frozen_server(
    nats_server: Server, run: Any
) -> None:
    async def tick(stop: asyncio.Event, cpu: list[float]) -> float:
        """The longest time between two turns of the loop."""
        longest, last, spent = 0.0, time.monotonic(), time.thread_time()
        while not stop.is_set():
            await asyncio.sleep(0.001)
            now, used = time.monotonic(), time.thread_time()
            longest = max(longest, now - last)
            cpu.append(used - spent)
            last, spent = now, used
        return longest

    async def stalled(queue: natslease.AsyncQueue) -> tuple[float, float, float, float]:
        """When it began and ended, the longest stall, and the longest use of the processor."""
        stop, cpu = asyncio.Event(), []  # type: ignore[var-annotated]
        began = time.monotonic()
        with nats_server.frozen():
            ticker = asyncio.ensure_future(tick(stop, cpu))
            calls = []
            for i in range(IN_FLIGHT):
                call = [queue.info, queue.reserve, queue.purge][i % 3]
                calls.append(asyncio.ensure_future(call(timeout=0.6)))  # type: ignore[operator]
                if i % 50 == 0:
                    await asyncio.sleep(0)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            stop.set()
            longest = await ticker
        assert {type(o) for o in outcomes} <= {
            natslease.Busy,
            natslease.DeadlineExceeded,
            natslease.QueueUnavailable,
        }
        assert sum(isinstance(o, natslease.DeadlineExceeded) for o in outcomes) > IN_FLIGHT / 2
        return began, time.monotonic(), longest, max(cpu)

    async def main() -> list[tuple[float, float, float, float]]:
        async with opened(nats_server, max_in_flight=IN_FLIGHT, silence_timeout=20) as queue:
            await stalled(queue)  # what is done once is done
            return [await stalled(queue) for _ in range(5)]

    with Beside() as beside:
        stalls = run(main())
    # The best round tells what the calls do to the loop: the others, what a busy machine does to
    # a process that works, which an idle one is spared.
    excess = [longest - beside.longest(began, ended) for began, ended, longest, _ in stalls]
    assert min(excess) <= MAX_STALL, excess
    # Whatever else the machine does: the loop does not work for longer at a time.
    assert statistics.median(cpu for *_, cpu in stalls) <= MAX_STALL, stalls

    assert_nothing_is_left()


@pytest.mark.parametrize("collected", [True, False])
def test_promise_4_a_loop_that_is_closed_during_calls(nats_server: Server, collected: bool) -> None:
    """It was neither awaited nor cancelled, as when somebody stops a loop and goes on."""
    loops: list[Any] = []

    async def begin(queue: natslease.AsyncQueue) -> None:
        loops.extend(asyncio.ensure_future(queue.reserve(1, wait=10)) for _ in range(10))
        await asyncio.sleep(0.05)

    with natslease.Client(nats_server.url) as client:
        tasks = client.queue("tasks", ack_wait=600)
        tasks.ensure()
        asynchronous = natslease.AsyncClient(nats_server.url)
        queue = asynchronous.queue("tasks", ack_wait=600)
        before = None
        for _ in range(5):
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(lambda *_: None)  # it complains of each task at its end
            loop.run_until_complete(begin(queue))
            loop.close()
            if collected:
                loops.clear()
                del loop
                gc.collect()
            else:
                loops.append(loop)  # still there, and still closed
            before = before or descriptors()
        if not collected:
            # The next loop that is used looks after those that are no more.
            asyncio.run(asynchronous.queue("other").ensure())
            with_loops = {k: v for k, v in descriptors().items() if "eventfd" not in v}
            assert len(with_loops) <= len(before or {})
        else:
            assert descriptors() == before
        tasks.publish([b"%d" % i for i in range(50)])
        taken = 0
        while batch := tasks.reserve(50, wait=1):
            taken += len(batch)
        assert taken == 50
        assert_nothing_is_left()
        loops.clear()
        gc.collect()
        asyncio.run(asynchronous.close())


def test_promise_4_a_callback_that_a_signal_handler_interrupts(
    nats_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exception goes to the loop's handler; the calls are woken all the same."""
    from natslease import _wire

    read = _wire.read_numbers
    interrupted: list[list[int]] = []

    def read_numbers(answer: bytes) -> list[int]:
        numbers = read(answer)
        if numbers and len(interrupted) < 3:
            interrupted.append(numbers)
            raise TimeoutError("of a signal handler")
        return numbers

    async def main() -> None:
        seen: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        async with opened(nats_server) as queue:
            monkeypatch.setattr(_wire, "read_numbers", read_numbers)
            calls = [queue.info() for _ in range(20)]
            calls_that_wait = [asyncio.ensure_future(queue.reserve(1, wait=3)) for _ in range(5)]
            await asyncio.gather(*calls)
            await queue.publish([b"x"] * 5)
            await asyncio.wait_for(asyncio.gather(*calls_that_wait), 10)
        assert len(seen) == len(interrupted) == 3

    asyncio.run(main())
    assert_nothing_is_left()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_promise_4_forks_out_of_a_running_loop(nats_server: Server, run: Any) -> None:
    async def use(queue: natslease.AsyncQueue) -> int:
        await queue.publish([b"of %d" % os.getpid()])
        (lease,) = await queue.reserve(1, wait=5)
        await lease.ack()
        return os.getpid()

    async def main() -> None:
        async with opened(nats_server) as queue:
            (before,) = connections(nats_server)
            waiting = [asyncio.ensure_future(queue.reserve(1, wait=30)) for _ in range(5)]
            await asyncio.sleep(0.01)
            other = queue._client._queue(natslease.AsyncQueue, {"stream": "other"})
            await other.ensure()
            await use(other)
            fds = descriptors()
            for _ in range(10):
                child = Child(lambda: asyncio.run(use(other)))
                assert await asyncio.to_thread(child.result) == child.pid
                await use(other)
            assert descriptors() == fds
            await queue.publish([b"%d" % i for i in range(5)])
            assert sorted(b[0].data for b in await asyncio.gather(*waiting)) == [
                b"%d" % i for i in range(5)
            ]
            assert set(connections(nats_server)) == {before}

    run(main())
