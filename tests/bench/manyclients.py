"""What many client processes do, and cost, on one queue of one server."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

from natslease.testing import Server
from report import Series
from sides import CONSUMER
from speaker import HERE, Speaker, natsgo
from usage import Cores, memory_mb

STREAM = "clients"
BATCH = 8
# More than is asked for: nobody has to wait for the last ones.
SPARE = 1_000
PAYLOAD = "x" * 230


@dataclass
class Crowd:
    """What was measured; times in microseconds."""

    processes: int
    rate: float = 0.0  # tasks a second that are reserved and acknowledged, by all of them
    reserve: Series = field(default_factory=Series)
    ack: Series = field(default_factory=Series)
    connections: int = 0
    server_cores: float = 0.0
    client_cores: float = 0.0
    server_mb: float = 0.0
    client_mb: float = 0.0  # each, of its own


def measure(processes: int, tasks: int) -> Crowd:
    """So many processes reserve and acknowledge so many tasks together."""
    found = Crowd(processes)
    each = max(BATCH, tasks // processes)
    with Server() as server, ExitStack() as stack:
        arranger = natsgo(server.url)
        stack.callback(arranger.close)
        arranger.ask("create", STREAM)
        asked = processes * each
        arranger.ask("refill", STREAM, count=asked + SPARE, payload=PAYLOAD)
        sides = [
            Speaker(sys.executable, HERE / "crowdclient.py", server.url, STREAM, CONSUMER)
            for _ in range(processes)
        ]
        for side in sides:
            stack.callback(side.close)
        for side in sides:
            side.tell(n=1, count=1)  # connects
        for side in sides:
            side.hear()
        found.connections = server.connz()["num_connections"] - 1  # the arranger's
        busy = Cores([server.pid]), Cores(side.pid for side in sides)
        began = time.perf_counter()
        for side in sides:
            side.tell(n=BATCH, count=each)
        answers = [side.hear() for side in sides]
        found.rate = asked / (time.perf_counter() - began)
        found.server_cores, found.client_cores = (cores.busy() for cores in busy)
        found.server_mb = memory_mb(server.pid)
        found.client_mb = sum(memory_mb(side.pid, "RssAnon") for side in sides) / processes
    for answer in answers:
        found.reserve.values += [ns / 1e3 for ns in answer["reserve"]]
        found.ack.values += [ns / 1e3 for ns in answer["ack"]]
    return found
