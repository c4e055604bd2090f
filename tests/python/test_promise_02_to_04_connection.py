"""Promises 2 to 4: one connection per process, which is replaced when it is lost; no event loop."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

import natslease
from faces import Face
from natslease.testing import Proxy, Server


def test_promise_2_one_connection_for_all_threads_and_clients(nats_server: Server) -> None:
    natslease.Client(nats_server.url).queue("tasks").ensure()
    start = threading.Barrier(50)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            queue = natslease.Client(nats_server.url).queue("tasks")
            start.wait()
            queue.publish([b"x"])
            queue.reserve(1)
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    # Clients of equal options share one; between two generations of clients it may end.
    assert nats_server.connz()["num_connections"] <= 1


def test_promise_2_opened_by_the_first_call(face: Face, nats_server: Server) -> None:
    client = face.client(nats_server.url)
    client.queue("tasks")
    assert client.stats().connected is False
    assert nats_server.varz()["total_connections"] == 0
    client.ping()
    assert client.stats().connected is True
    assert nats_server.varz()["total_connections"] == 1


def test_promise_2_other_options_are_another_connection(face: Face, nats_server: Server) -> None:
    face.client(nats_server.url).ping()
    face.client(nats_server.url, name="other").ping()
    assert nats_server.connz()["num_connections"] == 2


def test_promise_3_a_lost_connection_fails_calls_at_once(face: Face, nats_server: Server) -> None:
    with Proxy(nats_server.url) as proxy:
        client = face.client(proxy.url)
        queue = client.queue("tasks")
        queue.ensure()
        threading.Timer(0.3, proxy.cut).start()
        started = time.monotonic()
        with pytest.raises(natslease.ConnectionLost):
            queue.reserve(1, wait=20)
        assert time.monotonic() - started < 2
        assert queue.reserve(1) == []  # the next call dials afresh
        assert client.stats().sessions_opened == 2


def test_promise_3_it_does_not_reconnect_by_itself(face: Face, nats_server: Server) -> None:
    client = face.client(nats_server.url)
    client.ping()
    nats_server.restart()
    time.sleep(1)  # the time in which something must not happen
    assert nats_server.varz()["total_connections"] == 0
    with suppress(natslease.Unavailable):
        client.ping()
    client.ping()
    assert nats_server.varz()["total_connections"] == 1


def test_promise_3_silence_is_noticed(face: Face, nats_server: Server) -> None:
    client = face.client(nats_server.url, timeout=20)
    queue = client.queue("tasks")
    queue.ensure()
    with nats_server.frozen():
        started = time.monotonic()
        with pytest.raises(natslease.ConnectionLost) as raised:
            queue.info()
        assert 0.5 < time.monotonic() - started < 3
    assert raised.value.outcome == "unknown"
    assert "silent" in raised.value.explain() or "byte" in raised.value.explain()


def test_promise_4_no_event_loop(nats_url: str) -> None:
    script = """
import sys
import natslease
queue = natslease.Client(sys.argv[1]).queue("tasks")
queue.ensure()
queue.publish([b"x"])
for lease in queue.reserve(1, wait=1):
    lease.ack()
assert "asyncio" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, nats_url], timeout=60, check=True)


def test_promise_4_inside_a_running_loop(nats_url: str) -> None:
    import asyncio

    async def main() -> Any:
        queue = natslease.Client(nats_url).queue("tasks")
        queue.ensure()
        queue.publish([b"x"])
        return [lease.data for lease in queue.reserve(1)]

    assert asyncio.run(main()) == [b"x"]


def test_promise_4_no_thread_per_awaited_call(nats_url: str) -> None:
    import asyncio

    async def main() -> tuple[int, int]:
        async with natslease.AsyncClient(nats_url, max_in_flight=1000) as client:
            queue = client.queue("tasks")
            await queue.ensure()
            before = threading.active_count()
            calls = [asyncio.create_task(queue.reserve(1, wait=1)) for _ in range(300)]
            await asyncio.sleep(0.3)
            during = threading.active_count()
            await asyncio.gather(*calls)
            return before, during

    before, during = asyncio.run(main())
    assert during == before
