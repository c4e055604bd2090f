"""Promise 2 for many threads: one connection, fair, bounded, each with a timeout of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

import pytest

import natslease
from natslease.testing import Server
from timing import Sleeper

THREADS = 100


@contextmanager
def threads(work: Callable[[int], None], n: int = THREADS) -> Iterator[list[BaseException]]:
    """Threads that work at the same time as the block; what they raise is raised after it."""
    failures: list[BaseException] = []
    start = threading.Barrier(n)

    def run(i: int) -> None:
        try:
            start.wait(60)
            work(i)
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            failures.append(error)

    running = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in running:
        thread.start()
    try:
        yield failures
    finally:
        for thread in running:
            thread.join()
    assert not failures


def test_promise_2_threads_are_served_alike(nats_server: Server) -> None:
    counts = [0] * THREADS
    stop = threading.Event()
    with natslease.Client(nats_server.url, timeout=30, max_queue_wait=30) as client:
        queue = client.queue("tasks")
        queue.ensure()

        def work(i: int) -> None:
            while not stop.is_set():
                queue.publish([b"x"])
                queue.ack(queue.reserve(1, wait=10))
                counts[i] += 1

        with threads(work):
            deadline = time.monotonic() + 60
            while sum(counts) < 30 * THREADS:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            stop.set()
        assert client.stats().sessions_opened == 1
    assert nats_server.varz()["total_connections"] == 1
    assert min(counts) > sum(counts) / THREADS / 3, sorted(counts)


def test_promise_2_calls_in_flight_are_bounded(nats_server: Server) -> None:
    with natslease.Client(
        nats_server.url, timeout=20, max_in_flight=10, max_queue_wait=0.1, silence_timeout=20
    ) as client:
        queue = client.queue("tasks")
        queue.ensure()
        outcomes: list[type[BaseException]] = []
        retries: list[float | None] = []

        def work(_: int) -> None:
            try:
                queue.info(timeout=2)
            except natslease.Error as error:
                outcomes.append(type(error))
                retries.append(error.retry_after)

        with nats_server.frozen():
            most = 0
            with threads(work):
                deadline = time.monotonic() + 20
                while len(outcomes) < THREADS and time.monotonic() < deadline:
                    most = max(most, client.stats().in_flight)
                    time.sleep(0.005)
        assert most == 10
        assert sum(bool(retry_after) for retry_after in retries) == THREADS - 10
        assert sorted(outcomes, key=str) == sorted(
            [natslease.Busy] * (THREADS - 10) + [natslease.DeadlineExceeded] * 10, key=str
        )
        assert client.stats().in_flight == 0


def test_promise_2_a_timeout_is_the_threads_own(nats_server: Server) -> None:
    late: list[float] = []
    early: list[float] = []
    with (
        natslease.Client(nats_server.url, silence_timeout=20) as client,
        Sleeper.beside() as beside,
    ):
        queue = client.queue("tasks")
        queue.ensure()

        def work(i: int) -> None:
            timeout = 0.05 + 0.02 * i
            began = time.monotonic()
            late.append(beside.lateness_of(lambda: queue.info(timeout=timeout), timeout))
            early.append(began + timeout - time.monotonic())
            with suppress(natslease.Error):
                client.ping(timeout=0.05)

        with nats_server.frozen(), threads(work):
            pass
    assert max(early) < 0.03
    assert max(late) <= 0.25, sorted(late)[-5:]


@pytest.mark.parametrize("threads_in_calls", [0, 8])
def test_promise_2_clients_that_are_collected_meanwhile(
    nats_server: Server, threads_in_calls: int
) -> None:
    """Clients come and go without being closed, some as parts of cycles, while others work."""
    import gc

    stop = threading.Event()
    kept = natslease.Client(nats_server.url)
    busy = kept.queue("busy")
    busy.ensure()

    def work(_: int) -> None:
        while not stop.is_set():
            busy.publish([b"x"])
            busy.ack(busy.reserve(1, wait=5))

    def come_and_go() -> None:
        client = natslease.Client(nats_server.url)
        queue = client.queue("tasks")
        queue.info()
        cycle = [client, queue]
        cycle.append(cycle)

    kept.queue("tasks").ensure()
    with threads(work, threads_in_calls) if threads_in_calls else nullcontext():
        for i in range(200):
            come_and_go()
            if i % 10 == 0:
                gc.collect()
        gc.collect()
        stop.set()
    assert kept.stats().sessions_opened == 1
    kept.close()
    deadline = time.monotonic() + 10
    while nats_server.connz()["num_connections"]:
        assert time.monotonic() < deadline, "the collected clients keep their connection"
        time.sleep(0.01)
