"""What natslease costs besides its calls: time to import, first use, memory, many queues."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter_ns

import natslease
from speaker import OUTPUT

_FRESH = """
import os, sys
from time import perf_counter_ns
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = rss()
began = perf_counter_ns()
import natslease
imported = perf_counter_ns()
threads = len(os.listdir("/proc/self/task"))
client = natslease.Client(sys.argv[1])
client.ping()
used = perf_counter_ns()
queue = client.queue("memory")
queue.ensure()
queue.publish([b"x" * 230] * 64)
queue.ack(queue.reserve(64))
memory = rss() - before
import json
print(json.dumps({
    "import": imported - began, "first_use": used - imported, "memory": memory,
    "threads": threads, "asyncio": "asyncio" in sys.modules,
}))
"""


def fresh(url: str, runs: int) -> dict[str, float]:
    """Medians over fresh processes: milliseconds and MB."""
    # As installed, where pip has compiled all: whatever this environment says of bytecode.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(OUTPUT / "pycache")
    answers = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", _FRESH, url],
                env=environment,
                capture_output=True,
                check=True,
                timeout=60,
            ).stdout
        )
        for _ in range(runs + 1)
    ][1:]  # the first one may have compiled

    def median(key: str) -> float:
        return float(statistics.median(answer[key] for answer in answers))

    if any(answer["threads"] != 1 or answer["asyncio"] for answer in answers):
        raise RuntimeError(f"import natslease starts threads or imports asyncio: {answers[0]}")
    return {
        "import_ms": median("import") / 1e6,
        "first_use_ms": median("first_use") / 1e6,
        "memory_mb": median("memory") / 1e6,
    }


def forked(url: str, runs: int) -> float:
    """The median time of the first call in a forked child: it loads the extension and connects."""
    client = natslease.Client(url)
    client.ping()
    times = []
    for _ in range(runs):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                began = perf_counter_ns()
                client.ping()
                os.write(writing, str(perf_counter_ns() - began).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading) as answer:  # noqa: PTH123
            times.append(int(answer.read()))
        os.waitpid(pid, 0)
    client.close()
    return float(statistics.median(times)) / 1e6


def extension_mib() -> float:
    """The size of the compiled extension."""
    spec = find_spec("natslease")
    assert spec is not None
    assert spec.origin is not None
    (extension,) = Path(spec.origin).parent.glob("_natslease*.so")
    return extension.stat().st_size / 2**20


@contextmanager
def _refused() -> Iterator[str]:
    """The URL of a port that nobody listens on."""
    with socket.socket() as reservation:
        reservation.bind(("127.0.0.1", 0))
        yield "nats://{}:{}".format(*reservation.getsockname())


def breaker_open(calls: int) -> list[int]:
    """Nanoseconds of calls while the circuit breaker is open."""
    times: list[int] = []
    with _refused() as url:
        client = natslease.Client(url)
        while len(times) < calls:
            began = perf_counter_ns()
            try:
                client.ping(timeout=2.0)
            except natslease.CircuitOpen:
                times.append(perf_counter_ns() - began)
            except natslease.Unavailable:
                pass
        client.close()
    return times


class Queues:
    """A process's worth of queues, from which tasks are reserved in turn."""

    def __init__(self, url: str, names: list[str]) -> None:
        # A name of its own makes it a connection of its own.
        self._client = natslease.Client(url, name=f"bench {len(names)} queues", timeout=30.0)
        self._queues = {name: self._client.queue(name, consumer="workers") for name in names}

    def reserve(self, names: list[str], count: int) -> list[int]:
        """Nanoseconds of single reserves, each from the next queue."""
        times = []
        for i in range(count):
            queue = self._queues[names[i % len(names)]]
            began = perf_counter_ns()
            batch = queue.reserve(1, wait=1.0)
            times.append(perf_counter_ns() - began)
            batch[0].ack()
        return times

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()
