"""What a call costs while nothing is wrong: before, a connection for each; after, the process's.

``python -m replay.healthy`` measures, in turns, against one server: fetching 16 tasks in a view,
acknowledging a task in a Celery task, and requests over HTTP from end to end.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from natslease.testing import Server

from .services import Site

JOB = 1
BATCH = 16
ROUNDS = 60


def in_process(rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call, in this process."""
    import django

    django.setup()
    import nats
    from asgiref.sync import async_to_sync

    from natslease.contrib.antenna import JobQueue

    from .before import TaskQueueManager

    queue = JobQueue(JOB)
    queue.ensure()

    async def fetch() -> list[dict[str, Any]]:
        async with TaskQueueManager() as manager:
            return await manager.reserve_tasks(JOB, BATCH)

    async def acknowledge(reply: str) -> None:
        # As it was: the ack is published, and nobody waits for the server's word.
        nc = await nats.connect(os.environ["NATS_URL"])
        await nc.publish(reply, b"+ACK")
        await nc.flush()
        await nc.close()

    took: dict[str, list[float]] = {}

    def measure(what: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = call()
        took.setdefault(what, []).append((time.perf_counter() - began) * 1000)
        return result

    for n in range(rounds):
        for side in ("before", "after"):
            report = queue.publish({"id": f"{side}{n}-{i}"} for i in range(BATCH))
            assert len(report.accepted) == BATCH
            if side == "before":
                tasks = measure("fetch, before", async_to_sync(fetch))
                replies = [task["reply_subject"] for task in tasks]
                measure("ack, before", lambda: async_to_sync(acknowledge)(replies[0]))  # noqa: B023
            else:
                batch = measure("fetch, after", lambda: queue.reserve(BATCH, wait=0.5))
                replies = [lease.ack_subject for lease in batch]
                measure("ack, after", lambda: queue.queue.ack(replies[:1]))  # noqa: B023
            assert len(replies) == BATCH
            queue.queue.ack(replies[1:])
    return took


def over_http(name: str, url: str, folder: Path, rounds: int) -> list[float]:
    """Milliseconds of each request for 16 tasks, from end to end."""
    import natslease

    environment = {"DJANGO_SETTINGS_MODULE": f"replay.settings_{name}", "NATS_URL": url}
    environment["NATS_MAX_ACK_PENDING"] = "100000"
    folder.mkdir()
    with Site(folder, url, **environment) as site, natslease.Client(url) as client:
        made = site.prepare(images=1, job=JOB, status="STARTED")
        site.serve("replay.asgi:application")
        queue = client.queue(
            f"job_{JOB}", subject=f"job.{JOB}.tasks", consumer=f"job-{JOB}-consumer"
        )
        took = []
        for n in range(rounds + 10):
            queue.publish([json.dumps({"id": f"{name}{n}-{i}"}).encode() for i in range(BATCH)])
            request = urllib.request.Request(
                f"{site.url}/jobs/{JOB}/tasks/",
                json.dumps({"batch_size": BATCH}).encode(),
                {"Authorization": f"Token {made['token']}", "Content-Type": "application/json"},
            )
            began = time.perf_counter()
            with urllib.request.urlopen(request, timeout=30) as answer:
                tasks = json.loads(answer.read())["tasks"]
            if n >= 10:  # each of the web processes has had its first
                took.append((time.perf_counter() - began) * 1000)
            assert len(tasks) == BATCH
        return took


def run(rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """All of it: medians and 99th percentiles in milliseconds."""
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        os.environ["NATS_URL"] = server.url
        os.environ["NATS_MAX_ACK_PENDING"] = "100000"
        os.environ["ANTENNA_DATA"] = folder
        os.environ["DJANGO_SETTINGS_MODULE"] = "replay.settings_after"
        os.environ.setdefault("ANTENNA_LOG_LEVEL", "ERROR")
        took = in_process(rounds)
        for name in ("before", "after"):
            took[f"/tasks/ over HTTP, {name}"] = over_http(
                name, server.url, Path(folder, name), rounds
            )
    return {
        what: {
            "p50_ms": round(statistics.median(values), 3),
            "p99_ms": round(sorted(values)[int(len(values) * 0.99)], 3),
        }
        for what, values in took.items()
    }


def show(figures: dict[str, dict[str, float]]) -> str:
    """A table, in Markdown."""
    lines = [
        "| on a healthy server | before (ms) | after (ms) | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for what in dict.fromkeys(name.rpartition(", ")[0] for name in figures):
        before, after = figures[f"{what}, before"], figures[f"{what}, after"]
        cells = [f"{f['p50_ms']:.2f} ({f['p99_ms']:.2f})" for f in (before, after)]
        ratio = before["p50_ms"] / after["p50_ms"]
        lines.append(f"| {what} | {cells[0]} | {cells[1]} | {ratio:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(show(run(rounds)))
