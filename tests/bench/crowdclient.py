"""One of many client processes on a queue: reserves and acknowledges, and tells how long each took.

Reads one JSON command a line, as the sides of the benchmark do.
"""

from __future__ import annotations

import json
import sys
from time import perf_counter_ns

import natslease

PATIENCE = 60.0


def work(queue: natslease.Queue, n: int, count: int) -> dict[str, list[int]]:
    """Does so many tasks, in batches of n at most; nanoseconds of each call."""
    times: dict[str, list[int]] = {"reserve": [], "ack": []}
    while count > 0:
        began = perf_counter_ns()
        batch = queue.reserve(min(n, count), wait=5.0)
        reserved = perf_counter_ns()
        results = queue.ack(batch)
        acked = perf_counter_ns()
        if not batch or any(result.status != "settled" for result in results):
            raise RuntimeError(f"{len(batch)} tasks, {results[:1]}")
        count -= len(batch)
        times["reserve"].append(reserved - began)
        times["ack"].append(acked - reserved)
    return times


def main(url: str, stream: str, consumer: str) -> None:
    """Obeys until there are no more commands."""
    client = natslease.Client(url, timeout=PATIENCE)
    queue = client.queue(stream, consumer=consumer)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(work(queue, command["n"], command["count"])), flush=True)
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
