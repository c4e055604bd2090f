"""Acknowledging leases that other processes have reserved, maybe long ago."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import NamedTuple

import natslease
from natslease import Client, SettleResult


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
            answers = queue.ack([leases[i].ack_subject for i in own], timeout=left)
        except natslease.ConfigError as error:
            answers = [SettleResult("invalid", error=error)] * len(own)
        except natslease.Error as error:
            answers = [SettleResult("unknown", error=error)] * len(own)
        results.update(zip(own, answers, strict=True))
    return [results[i] for i in range(len(leases))]
