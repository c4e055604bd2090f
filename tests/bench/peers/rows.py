"""Who is compared: a row of the tables each."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A peer, called in one way.

    Attributes:
        name: of the row.
        module: of this package; it has a class Peer.
        broker: which server it is used with; one of brokers.Brokers.
        loop: whether coroutines call it, in an event loop that runs. Else it is synchronous code.
        many: whether a call, or calls at the same time, can enqueue many tasks.
        batches: whether a worker can take and acknowledge many tasks in one go.
        enqueues: whether enqueueing is measured; else it is that of another row.
        slow: the divisor of how many tasks are worked off.
        variant: of the worker.
        distribution: what pip calls it.
        python: the oldest minor version of Python 3 that it installs on.
    """

    name: str
    module: str
    broker: str
    distribution: str
    loop: bool = False
    many: bool = True
    batches: bool = False
    enqueues: bool = True
    slow: int = 1
    variant: str = ""
    python: int = 10

    @property
    def is_synchronous(self) -> bool:
        """Whether what it does in a fault is asked, too: once for each peer."""
        return not self.loop and self.enqueues and self.broker != "nats, fsync"


ROWS = {
    row.name: row
    for row in (
        Row("natslease", "with_natslease", "nats", "natslease", batches=True),
        Row("natslease, fsync", "with_natslease", "nats, fsync", "natslease", batches=True, slow=4),
        Row("nats-py", "with_natspy", "nats", "nats-py", batches=True),
        Row("natsrpy", "with_natsrpy", "nats", "natsrpy", batches=True),
        Row("nats-jetstream", "with_jetstream", "nats", "nats-jetstream", batches=True, python=13),
        Row("taskiq-nats", "with_taskiq", "nats", "taskiq-nats", batches=True),
        Row("Celery", "with_celery", "redis", "celery", many=False, slow=2),
        Row("RQ", "with_rq", "redis", "rq", slow=20),
        Row("RQ, SimpleWorker", "with_rq", "redis", "rq", enqueues=False, slow=4, variant="simple"),
        Row("procrastinate", "with_procrastinate", "postgres", "procrastinate", slow=8),
        Row("natslease, in a loop", "with_natslease", "nats", "natslease", loop=True, batches=True),
        Row("nats-py, in a loop", "with_natspy", "nats", "nats-py", loop=True, batches=True),
        Row("natsrpy, in a loop", "with_natsrpy", "nats", "natsrpy", loop=True, batches=True),
        Row(
            "nats-jetstream, in a loop",
            "with_jetstream",
            "nats",
            "nats-jetstream",
            loop=True,
            batches=True,
            python=13,
        ),
    )
}


def load(name: str) -> Any:
    """The Peer of a row, in a process that has a Setting."""
    return importlib.import_module(f"peers.{ROWS[name].module}").Peer()
