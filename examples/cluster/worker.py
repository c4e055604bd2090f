"""One of the processes that drain the queue: a worker that notes what it has done."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import natslease
from natslease.fleet import Fleet
from natslease.worker import QueueSource, Task, Worker

REPLICAS = 3
BATCH = 32
MOMENT = 0.005  # seconds of work on a task


def open_queue(client: natslease.Client) -> natslease.Queue:
    """The queue of this example, with a copy of everything on each of the three servers."""
    return client.queue(
        "job_1",
        subject="job.1.tasks",
        consumer="job-1-consumer",
        # Short, so that nobody has to wait long here for what a killed server had given out.
        ack_wait=3.0,
        max_deliver=10,
        dead_letters="dead",
        replicas=REPLICAS,
    )


def open_fleet(client: natslease.Client) -> Fleet:
    """Where the workers are registered, and what they do is recorded."""
    return Fleet(client, heartbeat=1.0, online_for=5.0, replicas=REPLICAS)


def main(slot: str, journal: Path) -> int:
    """Works until SIGTERM."""
    client = natslease.Client.from_env(name=f"worker {slot}", timeout=5.0)
    with journal.open("a", buffering=1) as done:

        def handle(tasks: list[Task]) -> None:
            for task in tasks:
                time.sleep(MOMENT)
                done.write(f"{time.time()} {task.id}\n")

        source = QueueSource(
            client, [open_queue(client)], fleet=open_fleet(client), service="example", slot=slot
        )
        return Worker(source, handle, batch_size=BATCH, wait=0.5, idle_backoff=0.5).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
