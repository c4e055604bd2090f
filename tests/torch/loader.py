"""A training loop's DataLoader whose workers reserve tasks, from a process that uses the queue."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from threading import Event
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

import natslease
from work import round_trip

TASKS = 200
WORKERS = 4


class Tasks(IterableDataset):  # type: ignore[misc]
    """Each worker takes what it can get, until the queue is empty."""

    def __init__(self, queue: natslease.Queue) -> None:
        self.queue = queue

    def __iter__(self) -> Iterator[dict[str, Any]]:
        assert get_worker_info().num_workers == WORKERS
        while batch := self.queue.reserve(8, wait=1.0):
            for lease in batch:
                yield {
                    "pid": os.getpid(),
                    "tensor": torch.full((2, 2), float(lease.data)),
                    "ack_subject": lease.ack_subject,
                }


def main(method: str) -> None:
    go_on = Event()
    signal.signal(signal.SIGUSR1, lambda *_: go_on.set())

    def show(account: object) -> None:
        """Tells the test, and waits until it has looked."""
        go_on.clear()
        print(f"shown: {json.dumps(account)}", flush=True)
        assert go_on.wait(60)

    client = natslease.Client.from_env(timeout=20)
    queue = client.queue("tasks")
    queue.ensure()
    show(round_trip(queue))
    loader = DataLoader(
        Tasks(queue),
        batch_size=16,
        num_workers=WORKERS,
        multiprocessing_context=method,
        persistent_workers=True,
    )
    for _ in range(2):
        queue.publish([b"%d" % i for i in range(TASKS)])
        seen: list[int] = []
        workers: set[int] = set()
        for batch in loader:
            assert batch["tensor"].shape[1:] == (2, 2)
            seen += [int(number) for number in batch["tensor"][:, 0, 0]]
            workers.update(batch["pid"].tolist())
            results = queue.ack(batch["ack_subject"])
            assert {result.status for result in results} == {"settled"}
        assert sorted(seen) == list(range(TASKS))
        processes = {process.pid for process in loader._iterator._workers}
        assert workers <= processes
        show(sorted(processes))
    del loader
    show(round_trip(queue))


if __name__ == "__main__":
    main(sys.argv[1])
