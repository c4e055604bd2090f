"""Pools of processes, forked, spawned and from a fork server; and the workers of a loader."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Iterator
from typing import Any

import pytest

import natslease
from natslease.testing import Server
from work import Done, await_processes, check_account, pids, processes_of, round_trip

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

METHODS = ("fork", "forkserver", "spawn")
WORKERS = 3

_barrier: Any = None
_queue: Any = None


def begin(queue: natslease.Queue, barrier: Any) -> None:
    """Begins a worker of a pool: a forked one gets the parent's own queue."""
    global _barrier, _queue
    _barrier, _queue = barrier, queue


def work(_: int) -> Done:
    done = round_trip(_queue)
    _barrier.wait(60)  # each worker does one
    return done


def work_with(queue: natslease.Queue) -> Done:
    """The queue travels with the task: clients of equal options share a connection."""
    return round_trip(queue)


@pytest.fixture
def queue(nats_server: Server) -> Iterator[natslease.Queue]:
    """A queue that the parent uses."""
    with natslease.Client(nats_server.url, timeout=20) as client:
        queue = client.queue("tasks")
        queue.ensure()
        yield queue


@pytest.mark.parametrize("method", METHODS)
def test_multiprocessing_pool(method: str, nats_server: Server, queue: natslease.Queue) -> None:
    done = [round_trip(queue)]
    before = processes_of(nats_server)
    context = multiprocessing.get_context(method)
    given = (queue, context.Barrier(WORKERS))
    with context.Pool(WORKERS, begin, given) as pool:
        done += pool.map(work, range(WORKERS), chunksize=1)
        assert len(pids(done)) == 1 + WORKERS
        done += pool.map(work_with, [queue] * WORKERS, chunksize=1)
        assert before.items() <= await_processes(nats_server, pids(done)).items()
        pool.close()
        pool.join()
    end(nats_server, queue, done, before)


@pytest.mark.parametrize("method", METHODS)
def test_multiprocessing_pool_whose_workers_are_replaced(
    method: str, nats_server: Server, queue: natslease.Queue
) -> None:
    done = [round_trip(queue)]
    before = processes_of(nats_server)
    context = multiprocessing.get_context(method)
    given = (queue, context.Barrier(WORKERS))
    with context.Pool(WORKERS, begin, given, maxtasksperchild=1) as pool:
        for generations in (1, 2, 3):
            done += pool.map(work, range(WORKERS), chunksize=1)
            assert len(pids(done)) == 1 + generations * WORKERS
        pool.close()
        pool.join()
    end(nats_server, queue, done, before)


@pytest.mark.parametrize("method", METHODS)
def test_concurrent_futures(method: str, nats_server: Server, queue: natslease.Queue) -> None:
    done = [round_trip(queue)]
    before = processes_of(nats_server)
    context = multiprocessing.get_context(method)
    given = (queue, context.Barrier(WORKERS))
    with concurrent.futures.ProcessPoolExecutor(WORKERS, context, begin, given) as pool:
        done += pool.map(work, range(WORKERS))
        assert len(pids(done)) == 1 + WORKERS
        done += pool.map(work_with, [queue] * WORKERS)
        assert before.items() <= await_processes(nats_server, pids(done)).items()
    end(nats_server, queue, done, before)


def load(queue: natslease.Queue, wanted: Any, loaded: Any, barrier: Any) -> None:
    """A worker of a loader: takes the places of tasks, gives their data."""
    queue.info()
    barrier.wait(60)  # each has a connection
    while (n := wanted.get()) is not None:
        batch = queue.reserve(n, wait=10)
        loaded.put([(os.getpid(), lease.data, lease.ack_subject) for lease in batch])
    queue._client.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", METHODS)
def test_loader(method: str, nats_server: Server, queue: natslease.Queue) -> None:
    """What torch's DataLoader does: workers that prefetch, fed and emptied by pipes and threads."""
    n, size = 96, 8
    done = [round_trip(queue)]
    before = processes_of(nats_server)
    queue.publish([b"%d" % i for i in range(n)])
    context: Any = multiprocessing.get_context(method)
    wanted, loaded, barrier = context.SimpleQueue(), context.Queue(), context.Barrier(WORKERS)
    processes = [
        context.Process(target=load, args=(queue, wanted, loaded, barrier), daemon=True)
        for _ in range(WORKERS)
    ]
    for process in processes:
        process.start()
    seen: list[int] = []
    for _ in range(n // size):
        wanted.put(size)
    while len(seen) < n:
        batch = loaded.get(timeout=60)
        seen += [int(data) for _, data, _ in batch]
        assert {pid for pid, _, _ in batch} < {process.pid for process in processes}
        results = queue.ack([subject for _, _, subject in batch])
        assert {result.status for result in results} == {"settled"}
    assert sorted(seen) == list(range(n))
    await_processes(nats_server, {os.getpid(), *(process.pid for process in processes)})
    for _ in processes:
        wanted.put(None)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    loaded.close()
    loaded.join_thread()
    end(nats_server, queue, done, before)


def end(server: Server, queue: natslease.Queue, done: list[Done], before: dict[int, int]) -> None:
    """The parent has kept its connection, and the pool has left none."""
    assert await_processes(server, {os.getpid()}) == before
    done.append(round_trip(queue))
    assert processes_of(server) == before
    queue._client.close()  # type: ignore[attr-defined]
    check_account(server, done)
