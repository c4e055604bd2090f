"""Queues and dead letters as the command line and Django's commands show them."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._asyncio import AsyncLease
    from ._client import Client
    from ._lease import Lease
    from ._types import DeadLetter
    from .fleet import BatchEvent, TaskHistory, WorkerInfo


def queue_rows(client: Client, pattern: str) -> list[dict[str, Any]]:
    """A row for each consumer of the streams whose names match, and for each without any."""
    rows = []
    for stream in client.streams(pattern, consumers=True):
        of_stream = {
            "stream": stream.name,
            "messages": stream.messages,
            "bytes": stream.bytes,
            "oldest_at": stream.first_at,
            "last_seq": stream.last_seq,
        }
        for consumer in stream.consumers:
            rows.append(  # noqa: PERF401 (two lists of fields)
                {
                    **of_stream,
                    "consumer": consumer.name,
                    "subject": (consumer.subjects or stream.subjects or [""])[0],
                    "pending": consumer.num_pending,
                    "leased": consumer.num_ack_pending,
                    "redelivered": consumer.num_redelivered,
                    "waiting": consumer.num_waiting,
                }
            )
        if not stream.consumers:
            subject = (stream.subjects or [""])[0]
            none = {"consumer": "", "subject": subject, "pending": stream.messages, "leased": 0}
            rows.append({**of_stream, **none, "redelivered": 0, "waiting": 0})
    return rows


def letter_row(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter with its data, in base64 where they are not JSON."""
    return {
        "id": letter.id,
        "seq": letter.seq,
        "attempts": letter.attempts,
        "reason": letter.reason,
        "worker": letter.worker,
        "died_at": letter.died_at,
        "published_at": letter.published_at,
        "headers": letter.headers,
        **payload(letter),
    }


def payload(task: Lease | AsyncLease | DeadLetter) -> dict[str, Any]:
    """A task's data under its name in a row: ``data``, or ``data_base64`` where it is not JSON."""
    try:
        return {"data": task.json()}
    except ValueError:
        return {"data_base64": b64encode(task.data).decode()}


def age(at: float) -> str:
    """How long ago a time was, roughly."""
    return lasting(max(time.time() - at, 0.0)) if at else "-"


def lasting(seconds: float) -> str:
    """A length of time in one unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: int) -> str:
    """A number of bytes in one unit."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def number(value: int) -> str:
    """A number that can be read."""
    return f"{value:,}"


def worker_row(worker: WorkerInfo) -> dict[str, Any]:
    """A worker, and what it does."""
    return {
        "worker": str(worker.worker),
        "status": "stopped" if worker.stopped else worker.status,
        "last_seen": worker.last_seen,
        "epoch": worker.epoch,
        "holding": worker.holding,
        "done": worker.done,
        "failed": worker.failed,
        "rate": worker.rate,
        "last_task": worker.last_task,
        "version": worker.version,
        "address": worker.address,
        "info": worker.info,
        "stopped": worker.stopped,
    }


def task_row(task: TaskHistory) -> dict[str, Any]:
    """A task: who has it, or had it last, and since when."""
    last = task.events[-1]
    return {
        "id": task.id,
        "seq": task.seq,
        "state": task.state,
        "worker": str(task.holder or last.worker),
        "since": task.since,
        "until": task.until,
        "events": [
            {
                "kind": event.kind,
                "at": event.at,
                "worker": str(event.worker),
                "attempt": event.attempt,
                "reason": event.reason,
                "unsure": event.unsure,
            }
            for event in task.events
        ],
    }


def event_row(event: BatchEvent) -> dict[str, Any]:
    """What a worker did with some tasks of a queue at once."""
    return {
        "at": event.at,
        "kind": event.kind,
        "stream": event.stream,
        "worker": str(event.worker),
        "seqs": event.seqs,
        "ids": event.ids,
        "reason": event.reason,
    }


def held(holding: dict[str, int]) -> str:
    """How many tasks of which queues."""
    return ", ".join(f"{n:,} of {stream}" for stream, n in holding.items()) or "-"


def per_second(rate: float) -> str:
    """A rate, without more places than it deserves."""
    return f"{rate:.1f}"


# The columns of workers: the field of a row, its title, and how it is shown.
WORKER_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "worker": ("WORKER", str),
    "status": ("STATUS", str),
    "last_seen": ("LAST SEEN", age),
    "holding": ("HOLDING", held),
    "done": ("DONE", number),
    "failed": ("FAILED", number),
    "rate": ("PER SECOND", per_second),
    "last_task": ("LAST TASK", str),
}
