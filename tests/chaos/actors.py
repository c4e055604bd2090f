"""The processes that are killed: they write down what they are about to do and what has been done.

A line of a journal is JSON and is written in one go: a process that is killed leaves whole lines.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import natslease

TIMEOUT = 3.0
BATCH = 50


class Journal:
    """One process's notes, in the order of their times."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, event: str, **facts: Any) -> None:
        line = json.dumps({"at": time.time(), "event": event, **facts})
        os.write(self._fd, f"{line}\n".encode())


def publish(queue: natslease.Queue, journal: Journal, name: str, first: int, count: int) -> None:
    """Publishes tasks of its own until the server has accepted each of them."""
    for start in range(first, first + count, BATCH):
        ids = [f"{name}-{i}" for i in range(start, min(start + BATCH, first + count))]
        left = [natslease.Message(id_.encode(), id=id_) for id_ in ids]
        journal.note("publishing", ids=ids)
        while left:
            try:
                report = queue.publish(left, timeout=TIMEOUT)
            except natslease.Error:
                time.sleep(0.1)
                continue
            failed = {result.index for result in report.failed}
            left = [message for i, message in enumerate(left) if i in failed]
        journal.note("accepted", ids=ids)


def work(queue: natslease.Queue, journal: Journal, seed: str) -> None:
    """Reserves and settles until it is killed."""
    chance = random.Random(seed)
    while True:
        journal.note("reserving")
        try:
            batch = queue.reserve(chance.choice((1, 16, 64)), wait=1.0, timeout=TIMEOUT)
        except natslease.Error as error:
            time.sleep(min(error.retry_after or 0.1, 1.0))
            continue
        if not batch:
            continue
        leases = [(lease.data.decode(), lease.seq, lease.attempt) for lease in batch]
        expires = min(lease.expires_at for lease in batch)
        journal.note("reserved", leases=leases, expires=expires)
        time.sleep(chance.random() * 0.02)
        kind = chance.choices(("ack", "nak", "release"), (96, 2, 2))[0]
        journal.note("settling", kind=kind, ids=[id_ for id_, *_ in leases])
        settled = getattr(queue, kind)(batch, timeout=TIMEOUT)
        journal.note(
            kind,
            results=[
                (id_, seq, result.status, result.late)
                for (id_, seq, _), result in zip(leases, settled, strict=True)
            ],
        )


def main() -> None:
    options = json.loads(sys.argv[1])
    client = natslease.Client(options["servers"], timeout=TIMEOUT)
    queue = client.queue(**options["queue"])
    journal = Journal(Path(options["journal"]))
    if options["role"] == "publisher":
        publish(queue, journal, options["name"], options["first"], options["count"])
    else:
        work(queue, journal, options["name"])


if __name__ == "__main__":
    main()
