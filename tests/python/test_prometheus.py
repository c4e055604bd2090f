"""Figures of clients in Prometheus, in one process and in several."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry

import natslease
from children import python
from natslease.contrib.prometheus import Metrics
from natslease.testing import Server


def test_figures_of_a_client(nats_server: Server) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry=registry)

    def value(name: str) -> float | None:
        return registry.get_sample_value(f"natslease_{name}", {"client": "tasks"})

    assert value("connected") is None
    with natslease.Client(nats_server.url) as client:
        metrics.watch(client, "tasks")
        assert value("connected") == 0
        client.ping()
        assert value("connected") == 1
        assert value("sessions_opened_total") == 1
        nats_server.stop()
        for _ in range(4):
            with suppress(natslease.Unavailable):
                client.ping()
        assert value("connected") == 0
        assert value("breaker_open") == 1
        assert value("breaker_opened_total") == 1
        assert (value("dial_failures_total") or 0) >= 2
        assert value("sessions_opened_total") == 1  # read again, not counted again
        assert nats_server.url not in str(list(registry.collect()))


def test_a_client_that_is_closed_or_gone_is_left_out(nats_url: str) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry=registry)
    client = natslease.Client(nats_url)
    metrics.watch(client)
    client.close()
    metrics.refresh()
    metrics.watch(natslease.Client(nats_url), "collected")
    assert registry.get_sample_value("natslease_connected", {"client": "collected"}) is None


def test_several_processes(nats_server: Server, tmp_path: Path) -> None:
    script = """
import os, struct, sys, time
import natslease
from natslease.contrib.prometheus import Metrics
from prometheus_client import CollectorRegistry, multiprocess

metrics = Metrics(interval=0.05)
client = natslease.Client(sys.argv[1])
metrics.watch(client)
client.ping()
stop, end = os.pipe()
children = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        os.close(end)
        client.ping()
        os.read(stop, 1)
        multiprocess.mark_process_dead(os.getpid())
        os._exit(0)
    children.append(pid)

def value(name):
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    try:
        return registry.get_sample_value("natslease_" + name, {"client": "default"})
    except struct.error:
        return None  # of prometheus_client: a file that a process has made this moment is empty

def wait_for(name, expected):
    deadline = time.monotonic() + 30
    while value(name) != expected:
        assert time.monotonic() < deadline, (name, value(name))
        time.sleep(0.02)

wait_for("connected", 3)
wait_for("sessions_opened_total", 3)
os.close(end)
for pid in children:
    os.waitpid(pid, 0)
    multiprocess.mark_process_dead(pid)
wait_for("connected", 1)
assert value("sessions_opened_total") == 3
print("ok")
"""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    assert python(script, nats_server.url, env=environment) == "ok\n"
