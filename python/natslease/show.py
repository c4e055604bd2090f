"""Queues and dead letters as the command line and Django's commands show them."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._client import Client
    from ._types import DeadLetter


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
    fields: dict[str, Any] = {
        "id": letter.id,
        "seq": letter.seq,
        "attempts": letter.attempts,
        "reason": letter.reason,
        "worker": letter.worker,
        "died_at": letter.died_at,
        "published_at": letter.published_at,
        "headers": letter.headers,
    }
    try:
        fields["data"] = letter.json()
    except ValueError:
        fields["data_base64"] = b64encode(letter.data).decode()
    return fields


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
