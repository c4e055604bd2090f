"""Outages, floods and many queues: what they cost, and how soon they are over."""

from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import natslease
from natslease.testing import Cluster, Server
from speaker import ROOT

NEXT = "$JS.API.CONSUMER.MSG.NEXT"
PATIENCE = 30.0


def hot_path_us(short: bool) -> float:
    """Microseconds that the circuit breaker and the bounds add to each call, by Go's benchmark."""
    command = ["go", "test", "./core", "-run", "^$", "-bench", "BreakerAndBounds"]
    command += ["-benchtime", "100x" if short else "1s"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = re.search(r"([\d.]+) ns/op", output)
    assert found, output
    return float(found[1]) / 1e3


@contextmanager
def counted_pulls(server: Server) -> Iterator[Callable[[], int]]:
    """How many pulls the server gets, by nats-py."""
    import nats

    pulls = 0
    ready, over = threading.Event(), threading.Event()

    async def count() -> None:
        async def add(_: object) -> None:
            nonlocal pulls
            pulls += 1

        connection = await nats.connect(server.url)
        await connection.subscribe(f"{NEXT}.>", cb=add)
        await connection.flush()
        ready.set()
        await asyncio.to_thread(over.wait)
        await connection.drain()

    thread = threading.Thread(target=asyncio.run, args=(count(),))
    thread.start()
    ready.wait(PATIENCE)

    def end() -> int:
        over.set()
        thread.join()
        return pulls

    try:
        yield end
    finally:
        end()


def flood(server: Server, threads: int, seconds: float) -> tuple[int, int]:
    """Threads that poll one empty queue as fast as they can: pulls, and answers."""
    with natslease.Client(server.url, name="bench flood", timeout=PATIENCE) as client:
        queue = client.queue("flood")
        queue.ensure()
        with counted_pulls(server) as pulls, ThreadPoolExecutor(threads) as pool:
            until = time.monotonic() + seconds

            def poll(_: int) -> int:
                answers = 0
                while time.monotonic() < until:
                    assert queue.reserve(1) == []
                    answers += 1
                return answers

            answers = sum(pool.map(poll, range(threads)))
            return pulls(), answers


class AnyOfMany(NamedTuple):
    """Milliseconds of reserve_any over many queues, three of which have tasks."""

    first: float  # call of a client that knows nothing of the queues
    all_looked_at: float  # likewise, when the three have less than it asks for
    known: float  # once they are known to have tasks
    reserve: float  # of as many tasks from one queue


def any_of_many(server: Server, count: int, rounds: int) -> AnyOfMany:
    """Measures reserve_any over many queues."""
    names = [f"any_{number}" for number in range(count)]
    batch = 64
    task = b"x" * 230
    scans, warm, one = [], [], []
    with natslease.Client(server.url, name="bench maker", timeout=PATIENCE) as maker:
        made = [maker.queue(name, storage="memory", max_ack_pending=100_000) for name in names]
        for queue in made:
            queue.ensure()
        ready = [made[count // 50], made[count // 2], made[count - count // 50 - 1]]
        for _ in range(min(rounds, 5)):
            for queue in ready:
                queue.publish([task] * (batch // 3 - 1))
            scans.append(_first(server, names, batch))
            for queue in ready:
                queue.purge()
        for queue in ready:
            queue.publish([task] * batch * 3 * rounds)
    firsts = [_first(server, names, batch) for _ in range(min(rounds, 5))]
    with natslease.Client(server.url, name="bench any", timeout=PATIENCE) as client:
        queues = [client.queue(name) for name in names]
        some = queues[count // 2]
        client.reserve_any(queues, batch)
        for _ in range(rounds):
            warm.append(_timed(lambda: client.reserve_any(queues, batch)))
            one.append(_timed(lambda: some.reserve(batch)))
    return AnyOfMany(*map(statistics.median, (firsts, scans, warm, one)))


def _first(server: Server, names: list[str], batch: int) -> float:
    with natslease.Client(server.url, name="bench first", timeout=PATIENCE) as client:
        queues = [client.queue(name) for name in names]
        client.ping()
        return _timed(lambda: client.reserve_any(queues, batch))


def _timed(call: Callable[[], natslease.LeaseBatch[natslease.Lease]]) -> float:
    began = time.perf_counter()
    batch = call()
    took = time.perf_counter() - began
    assert batch, "it found no task"
    return took * 1e3


def return_of_the_server(times: int) -> list[float]:
    """Milliseconds from a server's return to the first success, less the cool-down left."""
    late = []
    with (
        Server() as server,
        natslease.Client(server.url, name="bench outage", timeout=2.0) as client,
    ):
        for _ in range(times):
            client.ping()
            server.kill()
            while client.stats().breaker.state != "open":
                _fails(client)
            server.restart()
            returned = time.monotonic()
            cool_down = client.stats().breaker.retry_after
            while (pause := _fails(client)) is not None:
                time.sleep(pause)
            late.append((time.monotonic() - returned - cool_down) * 1e3)
    return late


def _fails(client: natslease.Client) -> float | None:
    """When to come again, after a call that failed."""
    try:
        client.ping()
    except natslease.Unavailable as error:
        return error.retry_after or 0.01
    return None


def leader_killed() -> tuple[float, float]:
    """Seconds without a consumer's leader, and ms until work goes on when the servers do."""
    with Cluster() as cluster:
        with natslease.Client(cluster.urls[0], name="bench maker", timeout=PATIENCE) as maker:
            queue = maker.queue("jobs", replicas=3)
            queue.ensure()
            queue.publish([b"x"] * 20_000)
            led = queue.info().leader
        (leader,) = (s for s in cluster.servers if s.varz()["server_name"] == led)
        other = next(s for s in cluster.servers if s is not leader)
        with natslease.Client(other.url, name="bench leader", timeout=2.0) as client:
            queue = client.queue("jobs")
            over = threading.Event()
            resumed: list[float] = []

            def reserves() -> bool:
                try:
                    queue.reserve(1, wait=0.1)
                except (natslease.Unavailable, natslease.DeadlineExceeded):
                    return False
                return True

            def work() -> None:
                failed = False
                while not over.is_set():
                    if not reserves():
                        failed = True
                    elif failed:
                        resumed.append(time.monotonic())
                        return

            workers = [threading.Thread(target=work) for _ in range(4)]
            for worker in workers:
                worker.start()
            time.sleep(0.2)
            leader.kill()
            killed = time.monotonic()
            answer = asyncio.run(_pulls_again(other.url))
            for worker in workers:
                worker.join(PATIENCE)
            over.set()
            return answer - killed, (min(resumed) - answer) * 1e3


async def _pulls_again(url: str) -> float:
    """When a bare pull brings a task again, after one that did not."""
    import nats

    connection = await nats.connect(url)
    inbox = await connection.subscribe("bench.inbox")
    failed = False
    while True:
        request = b'{"batch":1,"expires":50000000,"no_wait":true}'
        await connection.publish(f"{NEXT}.jobs.jobs", request, reply="bench.inbox")
        try:
            got = bool((await inbox.next_msg(timeout=0.1)).reply)
        except nats.errors.TimeoutError:
            got = False
        if got and failed:
            await connection.close()
            return time.monotonic()
        failed = failed or not got
        if not got:
            await asyncio.sleep(0.005)
