"""The worker that tests run as a process of its own, and kill.

It writes down which tasks its handler has finished, in one go each: lines are whole.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import natslease
from natslease.fleet import Fleet
from natslease.worker import Failed, HTTPSource, QueueSource, Task, Worker

TOKEN = "secret-token"
QUEUE = {"ack_wait": 3.0, "max_deliver": 2, "max_ack_pending": 2_000, "dead_letters": "dead"}


class Handlers:
    """What can be done with a batch."""

    def __init__(self, journal: str, pause: float) -> None:
        self._fd = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._pause = pause
        self._calls = 0
        self.worker: Worker | None = None

    def _do(self, task: Task) -> str:
        time.sleep(self._pause)
        os.write(self._fd, f"{task.id}\n".encode())
        return f"done {task.id}"

    def steady(self, batch: list[Task]) -> Iterator[Any]:
        for task in batch:
            yield self._do(task)

    def raises(self, batch: list[Task]) -> Iterator[Any]:
        """Once in each batch of several."""
        for i, task in enumerate(batch):
            if i == 2 and len(batch) > 1:
                raise RuntimeError("out of memory, say")
            yield self._do(task)

    def too_few(self, batch: list[Task]) -> list[Any]:
        return [self._do(task) for task in (batch[:-1] if len(batch) > 1 else batch)]

    def some_fail(self, batch: list[Task]) -> Iterator[Any]:
        for task in batch:
            if len(batch) > 1 and int(task.id) % 5 == 0:
                yield Failed(task, "not today")
            else:
                yield self._do(task)

    def hangs(self, batch: list[Task]) -> Iterator[Any]:
        """In its third batch, unless it was started again; where a signal does not get it out."""
        self._calls += 1
        for i, task in enumerate(batch):
            if self._calls == 3 and i == 1 and not Path("hung").exists():
                Path("hung").touch()
                print("hangs", flush=True)
                sleep_in_c = ctypes.CDLL(None).usleep
                while True:
                    sleep_in_c(500_000)
            yield self._do(task)

    def hogs(self, batch: list[Task]) -> Iterator[Any]:
        """Never lets go of the interpreter's lock for twice as long as a lease lasts."""
        print("hogs", flush=True)
        ctypes.PyDLL(None).usleep(int(self._pause * 1e6))
        print("let go", flush=True)
        for task in batch:
            os.write(self._fd, f"{task.id}\n".encode())
            yield None

    def stuck(self, batch: list[Task]) -> Iterator[Any]:
        """Does one, then the second for ever."""
        yield self._do(batch[0])
        print("stuck", flush=True)
        time.sleep(3600)


def source(slot: int, options: dict[str, Any]) -> Any:
    if "base" in options:
        who = {"service": "test", "slot": slot, **options.get("source", {})}
        return HTTPSource(options["base"], TOKEN, timeout=(2, 5), **who)
    client = natslease.Client(options["url"], timeout=3.0)
    return QueueSource(
        client,
        [client.queue("tasks", **QUEUE)],  # type: ignore[arg-type]
        fleet=Fleet(client, heartbeat=1.0) if options.get("fleet") else None,
        service="test",
        slot=slot,
    )


def work(slot: int, options: dict[str, Any]) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")
    handlers = Handlers(options["journal"], options.get("pause", 0.0))
    handler: Callable[[list[Task]], Any] = getattr(handlers, options.get("handler", "steady"))
    worker = Worker(source(slot, options), handler, **{"idle_backoff": 0.5, **options["worker"]})
    sys.stdout.write(f"working {os.getpid()}\n")  # in one go: others write there too
    sys.stdout.flush()
    return worker.run()


def main() -> None:
    options = json.loads(sys.argv[1])
    if "slots" in options:
        from natslease.worker import run_slots

        sys.exit(
            run_slots(work, options["slots"], args=(options,), start_method=options["start_method"])
        )
    sys.exit(work(0, options))


if __name__ == "__main__":
    main()
