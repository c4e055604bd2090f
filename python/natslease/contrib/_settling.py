"""Settling leases by their ack subjects, which other processes have reserved, maybe long ago."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Literal, NamedTuple

import natslease
from natslease import Client, Queue, SettleResult

from ._acksubjects import PUBLISHED, parts_of

Kind = Literal["ack", "extend", "nak", "release"]

# For how many seconds it is remembered when a stream was created.
_REMEMBERED = 5.0
# By how much the clocks of a cluster's servers may differ: one writes down when a stream was
# created, another when a task was published.
_SKEW_NS = 2_000_000_000
_NS = 1_000_000_000

_created: dict[tuple[str, str], tuple[float, int]] = {}


def settle(
    queue: Queue,
    kind: Kind,
    subjects: Sequence[str],
    *,
    alias: str,
    timeout: float,
    **options: Any,
) -> list[SettleResult]:
    """Settles leases of a queue, but for those of a stream of that name which was deleted since:
    they are gone. The server knows tasks by their number only, and the stream that was made anew
    counts from 1 again: it would settle another task.

    Raises:
        Error: as ``Queue.ack``, and where the server does not tell when the stream was created.
    """
    until = monotonic() + timeout
    created = _created_at(queue, alias, timeout)
    gone = natslease.LeaseGone(
        f"the queue {queue.stream} was deleted since, and made anew",
        outcome="rejected",
        operation=kind,
    )
    results = {
        i: SettleResult("gone", error=gone)
        for i, subject in enumerate(subjects)
        if _published(subject) < created - _SKEW_NS
    }
    left = [i for i in range(len(subjects)) if i not in results]
    if left:
        time_left = until - monotonic()
        if time_left <= 0:
            raise natslease.DeadlineExceeded("there was no time left for it", operation=kind)
        answers = getattr(queue, kind)([subjects[i] for i in left], timeout=time_left, **options)
        results.update(zip(left, answers, strict=True))
    return [results[i] for i in range(len(subjects))]


def _created_at(queue: Queue, alias: str, timeout: float) -> int:
    """When the queue's stream was created, in nanoseconds since 1970; 0 when that is not known."""
    key = alias, queue.stream
    known = _created.get(key)
    if known is not None and monotonic() - known[0] < _REMEMBERED:
        return known[1]
    try:
        created = int(queue.info(timeout=timeout).stream_created * _NS)
    except (natslease.Unavailable, natslease.DeadlineExceeded):
        raise
    except natslease.Error:
        return 0  # what does not exist, or may not be looked at, is for the call itself to find out
    if len(_created) >= 10_000:
        _created.clear()
    _created[key] = monotonic(), created
    return created


def _published(subject: str) -> int:
    try:
        return int(parts_of(subject)[PUBLISHED])
    except (IndexError, ValueError):
        return 1 << 63  # not old, but wrong: the call itself says so


class Taken(NamedTuple):
    """A lease that is known to be of this queue."""

    alias: str
    stream: str
    consumer: str
    ack_subject: str


def acknowledge(
    leases: Sequence[Taken], client_of: Callable[[str], Client], timeout: float
) -> list[SettleResult]:
    """Acknowledges leases, one call per queue. Returns what became of each; does not raise for
    what an outage or one queue does.

    Args:
        client_of: the client of an alias.
        timeout: seconds for all of them.
    """
    places: dict[tuple[str, str, str], list[int]] = {}
    for i, lease in enumerate(leases):
        places.setdefault(lease[:3], []).append(i)
    results: dict[int, SettleResult] = {}
    until = monotonic() + timeout
    for (alias, stream, consumer), own in places.items():
        try:
            left = until - monotonic()
            if left <= 0:
                raise natslease.DeadlineExceeded("there was no time left for it", operation="ack")
            queue = client_of(alias).queue(stream, consumer=consumer)
            subjects = [leases[i].ack_subject for i in own]
            answers = settle(queue, "ack", subjects, alias=alias, timeout=left)
        except natslease.ConfigError as error:
            answers = [SettleResult("invalid", error=error)] * len(own)
        except natslease.Error as error:
            answers = [SettleResult("unknown", error=error)] * len(own)
        results.update(zip(own, answers, strict=True))
    return [results[i] for i in range(len(leases))]
