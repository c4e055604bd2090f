"""Promise 1: every call has a timeout and returns by it, whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

import natslease
from faces import Face
from natslease.testing import Direction, Proxy, Server
from ports import INFO, silent_port
from timing import Sleeper

TIMEOUT = 0.4
# What the promise allows, beyond the lateness of a sleeper beside the calls.
MAX_LATENESS = 0.25

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "ping": lambda c, _: c.ping(timeout=TIMEOUT),
    "ensure": lambda c, _: c.queue("other").ensure(timeout=TIMEOUT),
    "info": lambda c, _: c.queue("tasks").info(timeout=TIMEOUT),
    "publish": lambda c, _: c.queue("tasks").publish([b"x"] * 10, timeout=TIMEOUT),
    "publish much": lambda c, _: c.queue("tasks").publish([b"x" * 100_000] * 200, timeout=TIMEOUT),
    "reserve": lambda c, _: c.queue("tasks").reserve(5, timeout=TIMEOUT),
    "reserve and wait": lambda c, _: c.queue("tasks").reserve(5, wait=0.3, timeout=TIMEOUT),
    "ack": lambda c, leases: c.queue("tasks").ack(leases, timeout=TIMEOUT),
    "nak": lambda c, leases: c.queue("tasks").nak(leases, timeout=TIMEOUT),
    "purge": lambda c, _: c.queue("tasks").purge(timeout=TIMEOUT),
    "delete": lambda c, _: c.queue("nowhere").delete(timeout=TIMEOUT),
    "close": lambda c, _: c.close(timeout=TIMEOUT),
}


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o not in ("ack", "nak", "close")])
@pytest.mark.parametrize(
    "port",
    [{}, {"accepts": False}, {"sends": INFO[:20]}, {"sends": INFO}],
    ids=["never speaks", "never accepts", "half an INFO", "CONNECT never answered"],
)
def test_promise_1_port_without_a_server(face: Face, port: Any, operation: str) -> None:
    with silent_port(**port) as url, Sleeper.beside() as sleeper:
        client = face.client(url)
        call = OPERATIONS[operation]
        assert sleeper.lateness_of(lambda: call(client, []), TIMEOUT) <= MAX_LATENESS


FAULTS: dict[str, Callable[[Server, Proxy], Any]] = {
    "frozen server": lambda server, _: server.freeze(),
    "black hole": lambda _, proxy: proxy.black_hole(),
    "stall": lambda _, proxy: proxy.stall(),
    "answers stall": lambda _, proxy: proxy.stall(Direction.FROM_SERVER),
    "one byte at a time": lambda _, proxy: proxy.trickle(0.05),
    "cut": lambda _, proxy: proxy.cut(),
    "killed server": lambda server, _: server.kill(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_promise_1_fault_under_a_connection(face: Face, fault: str) -> None:
    late: dict[str, float] = {}
    with Server() as server, Sleeper.beside() as sleeper:
        for operation, call in OPERATIONS.items():
            if not server.is_running:
                server.start()
            with Proxy(server.url) as proxy:
                client = face.client(proxy.url)
                queue = client.queue("tasks")
                queue.ensure()
                queue.publish([b"x"] * 5)
                leases = queue.reserve(5)
                FAULTS[fault](server, proxy)
                try:
                    late[operation] = sleeper.lateness_of(partial(call, client, leases), TIMEOUT)
                finally:
                    if server.is_running:
                        server.thaw()
                    proxy.restore()
                if operation != "close":
                    client.close(timeout=0.1) if fault == "killed server" else client.close()
    assert all(lateness <= MAX_LATENESS for lateness in late.values()), late


def test_promise_1_nothing_grows_behind_a_call(face: Face) -> None:
    with Server() as server, Proxy(server.url) as proxy:
        client = face.client(proxy.url)
        queue = client.queue("tasks")
        queue.ensure()
        proxy.stall()
        for _ in range(10):
            with suppress(natslease.Error):
                assert not queue.publish([b"x" * 1_000_000], timeout=0.1).accepted
        assert client.stats().in_flight == 0


def test_promise_1_name_that_is_not_there(face: Face) -> None:
    with Sleeper.beside() as sleeper:
        client = face.client("nats://no-such-host.invalid:4222")
        assert sleeper.lateness_of(lambda: client.ping(timeout=TIMEOUT), TIMEOUT) <= MAX_LATENESS
