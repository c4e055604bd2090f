"""What many queues cost: to make, to use, to list, and when their server starts again."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

import natslease
from natslease.fleet import Fleet
from natslease.testing import Cluster, Server, ServerFailed
from report import Series
from usage import Cores, descriptors, memory_mb

PATIENCE = 120.0
MAKERS = 16  # calls at a time
TASKS = 4  # of one call
ANY = 64  # of reserve_any
PAYLOAD = b"x" * 230


@dataclass
class Layout:
    """How queues are laid out.

    Attributes:
        one_stream: whether they are consumers of one stream, instead of a stream each.
        replicas: on so many servers.
    """

    one_stream: bool = False
    replicas: int = 1


@dataclass
class Found:
    """What was measured; times in microseconds where nothing else is said."""

    queues: int
    create_ms: float = 0.0
    publish: Series = field(default_factory=Series)
    reserve: Series = field(default_factory=Series)
    ack: Series = field(default_factory=Series)
    any_first_ms: float = 0.0
    any_ms: float = 0.0
    list_ms: float = 0.0
    list_consumers_ms: float = 0.0
    command_s: float = 0.0
    sweep_ms: float = 0.0
    memory_mb: float = 0.0
    descriptors: int = 0
    cores: float = 0.0
    cores_idle: float = 0.0
    stop_s: float = 0.0
    restart_s: float = 0.0
    recover_s: float = 0.0

    @property
    def rate(self) -> float:
        """Tasks a second that one process reserves and acknowledges, one call after the other."""
        seconds = (sum(self.reserve.values) + sum(self.ack.values)) / 1e6
        return TASKS * len(self.reserve.values) / seconds


def measure(count: int, calls: int, layout: Layout) -> Found:
    """Measures so many queues on servers of their own, with so many calls of each kind."""
    found = Found(count)
    with _servers(layout) as servers:
        urls = [server.url for server in servers]
        with natslease.Client(urls, name="sizing", timeout=PATIENCE) as client:
            _ask(client, count, calls, layout, servers, found)
        _restart(servers, found)
    return found


def _ask(
    client: natslease.Client,
    count: int,
    calls: int,
    layout: Layout,
    servers: Sequence[Server],
    found: Found,
) -> None:
    queues = _queues(client, count, layout)
    _create(queues, layout, servers, found)
    _use(queues, calls, servers, found)
    _reserve_any([server.url for server in servers], count, layout, found)
    _list(client, servers, found)
    found.memory_mb = max(memory_mb(server.pid) for server in servers)
    found.descriptors = max(descriptors(server.pid) for server in servers)
    idle = Cores(server.pid for server in servers)
    time.sleep(1.0)
    found.cores_idle = idle.busy()


@contextmanager
def _servers(layout: Layout) -> Iterator[Sequence[Server]]:
    if layout.replicas > 1:
        with Cluster(layout.replicas, timeout=PATIENCE) as cluster:
            yield cluster.servers
        return
    server = Server(timeout=PATIENCE)
    if layout.one_stream:
        store = server.directory / "data"
        server.config = (
            f'jetstream {{ store_dir: "{store}", limits {{ default_max_consumers: -1 }} }}'
        )
    with server:
        yield [server]


def _queues(client: natslease.Client, count: int, layout: Layout) -> list[natslease.Queue]:
    options: dict[str, Any] = {"replicas": layout.replicas, "ack_wait": 60.0}
    if layout.one_stream:
        return [
            client.queue("jobs", subject=f"job.{n}.tasks", consumer=f"job-{n}", **options)
            for n in range(count)
        ]
    return [
        client.queue(f"job_{n}", subject=f"job.{n}.tasks", consumer=f"job-{n}", **options)
        for n in range(count)
    ]


def _create(
    queues: list[natslease.Queue], layout: Layout, servers: Sequence[Server], found: Found
) -> None:
    if layout.one_stream:
        asyncio.run(_create_stream(servers[0].url))
    began = time.perf_counter()
    with ThreadPoolExecutor(MAKERS) as pool:
        for _ in pool.map(lambda queue: queue.ensure(), queues):
            pass
    found.create_ms = (time.perf_counter() - began) * 1e3 / len(queues)


async def _create_stream(url: str) -> None:
    """The stream of many queues, whose subjects have a wildcard: a queue's own has none."""
    import nats

    connection = await nats.connect(url)
    await connection.jetstream().add_stream(
        name="jobs", subjects=["job.*.tasks"], retention="workqueue", discard="new"
    )
    await connection.close()


def _use(
    queues: list[natslease.Queue], calls: int, servers: Sequence[Server], found: Found
) -> None:
    """Publishes to the queues, reserves from them and acknowledges, one after the other."""
    turns = [queues[n % len(queues)] for n in range(calls)]
    busy = Cores(server.pid for server in servers)
    for queue in turns:
        began = perf_counter_ns()
        report = queue.publish([PAYLOAD] * TASKS)
        found.publish.values.append((perf_counter_ns() - began) / 1e3)
        assert len(report.accepted) == TASKS
    for queue in turns:
        began = perf_counter_ns()
        batch = queue.reserve(TASKS, wait=5.0)
        reserved = perf_counter_ns()
        results = queue.ack(batch)
        acked = perf_counter_ns()
        assert len(batch) == TASKS
        assert all(result.status == "settled" for result in results)
        found.reserve.values.append((reserved - began) / 1e3)
        found.ack.values.append((acked - reserved) / 1e3)
    found.cores = busy.busy()


def _reserve_any(urls: list[str], count: int, layout: Layout, found: Found) -> None:
    """Three queues have tasks, at the beginning, in the middle, and at the end."""
    rounds = 6
    with natslease.Client(urls, name="sizing any", timeout=PATIENCE) as client:
        queues = _queues(client, count, layout)
        for place in (0, count // 2, count - 1):
            queues[place].publish([PAYLOAD] * ANY * rounds)
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            batch = client.reserve_any(queues, ANY)
            times.append((time.perf_counter() - began) * 1e3)
            assert batch, "it found no task"
            for lease in batch:
                lease.ack()
        found.any_first_ms, found.any_ms = times[0], statistics.median(times[1:])


def _list(client: natslease.Client, servers: Sequence[Server], found: Found) -> None:
    fleet = Fleet(client)
    found.list_ms = 1e3 * _seconds(lambda: client.streams("job*"))
    found.list_consumers_ms = 1e3 * _seconds(lambda: client.streams("job*", consumers=True))
    found.sweep_ms = 1e3 * _seconds(lambda: fleet.sweep("job*", min_age=3600.0))
    command = [sys.executable, "-m", "natslease", "queues", "--json"]
    environment = {**os.environ, "NATS_URL": servers[0].url, "NATS_TIMEOUT": str(PATIENCE)}
    found.command_s = _seconds(
        lambda: subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    )


def _restart(servers: Sequence[Server], found: Found) -> None:
    """A stop, and starts until the server is healthy: after the stop, and after kill -9."""
    server = servers[0]
    found.stop_s = _seconds(server.stop)
    found.restart_s = _seconds(lambda: _start(server))
    server.kill()
    found.recover_s = _seconds(lambda: _start(server))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _start(server: Server) -> None:
    deadline = time.perf_counter() + PATIENCE
    server.start()
    while not _is_healthy(server):
        if time.perf_counter() > deadline:
            raise RuntimeError(f"not healthy after {PATIENCE} s")
        time.sleep(0.02)


def _is_healthy(server: Server) -> bool:
    try:
        server.monitor("healthz")
    except ServerFailed:
        return False
    return True
