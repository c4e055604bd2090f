"""Accounts for every task from what the processes have written down."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

# How long after an answered ack the death of a server may undo it: JetStream forgets what it has
# not written, and says so.
FORGOTTEN_WITHIN = 2.0


@dataclass
class Delivery:
    """One delivery of one task."""

    at: float
    holder: str
    seq: int
    expires: float
    attempt: int = 0
    settled: str = ""  # what became of it: "ack settled", "nak unknown", ...
    settled_at: float = 0.0
    intended: bool = False  # an ack was about to be sent


@dataclass
class Account:
    """What became of the tasks."""

    published: set[str] = field(default_factory=set)  # perhaps
    accepted: set[str] = field(default_factory=set)
    deliveries: dict[str, list[Delivery]] = field(default_factory=lambda: defaultdict(list))
    kills: dict[str, float] = field(default_factory=dict)  # of processes, by name
    freezes: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # of processes
    faults: list[tuple[float, float]] = field(default_factory=list)  # of servers: from, to

    lost: set[str] = field(default_factory=set)
    strange: set[str] = field(default_factory=set)  # nobody has published them
    duplicated: set[str] = field(default_factory=set)  # twice in the queue
    unexplained: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def close(self, left: Iterable[str]) -> None:
        """Draws the conclusions; left is what is still in the queue."""
        remaining = set(left)
        for id_, deliveries in self.deliveries.items():
            # As the server made them. Who was frozen takes note of one later than that; a server
            # that was killed may have forgotten the attempts.
            deliveries.sort(key=lambda delivery: (delivery.seq, delivery.attempt, delivery.at))
            if len({delivery.seq for delivery in deliveries}) > 1 and not self._was_released(id_):
                self.duplicated.add(id_)
            for earlier, later in pairwise(deliveries):
                self._explain(id_, earlier, later)
        self.strange = set(self.deliveries) - self.published
        for id_ in self.accepted - remaining:
            # An ack that was on its way when its sender died may have arrived.
            done = any(
                delivery.settled in ("ack settled", "ack unknown")
                or (delivery.intended and not delivery.settled)
                for delivery in self.deliveries.get(id_, ())
            )
            if not done:
                self.lost.add(id_)

    def _was_released(self, id_: str) -> bool:
        # A release on the last attempt makes a new message of the task.
        return any(d.settled.startswith("release") for d in self.deliveries[id_])

    def _explain(self, id_: str, earlier: Delivery, later: Delivery) -> None:
        self.counts["delivered again"] += 1
        reasons = {
            "the holder was killed": earlier.holder in self.kills
            and not earlier.settled.endswith("settled"),
            # What arrived meanwhile has waited in the socket, nobody knows how long.
            "the holder was frozen": any(
                begin <= earlier.at <= end + 1
                for begin, end in self.freezes.get(earlier.holder, ())
            ),
            "the lease ran out": later.at >= earlier.expires - 0.05,
            "it was given back": earlier.settled.split()[:1] in (["nak"], ["release"]),
            "the answer was lost": earlier.settled == "ack unknown",
            "a server died": any(
                begin - FORGOTTEN_WITHIN <= (delivery.settled_at or delivery.at) <= end
                for begin, end in self.faults
                for delivery in ([earlier] if later.at > earlier.at else [earlier, later])
            ),
        }
        for reason, holds in reasons.items():
            if holds:
                self.counts[f"delivered again: {reason}"] += 1
                break
        else:
            self.unexplained.append(f"{id_}: {earlier} then {later}")
        if earlier.settled == "ack settled":
            self.counts["acknowledged, but seen again"] += 1

    @property
    def is_sound(self) -> bool:
        return not (self.lost or self.strange or self.duplicated or self.unexplained)


def read(folder: Path, account: Account) -> None:
    """Reads the journals of all processes."""
    for holder, notes in journals(folder):
        current: dict[str, Delivery] = {}
        for note in notes:
            event = note["event"]
            if event == "publishing":
                account.published.update(note["ids"])
            elif event == "accepted":
                account.accepted.update(note["ids"])
            elif event == "reserved":
                for id_, seq, attempt in note["leases"]:
                    current[id_] = Delivery(note["at"], holder, seq, note["expires"], attempt)
                    account.deliveries[id_].append(current[id_])
            elif event == "settling":
                for id_ in note["ids"]:
                    current[id_].intended = note["kind"] == "ack"
            elif event != "reserving":
                for id_, _, status, late in note["results"]:
                    current[id_].settled = f"{event} {status}"
                    current[id_].settled_at = note["at"]
                    account.counts[f"{event} {status}{' late' if late else ''}"] += 1


def journals(folder: Path) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """What each process has written down."""
    for path in sorted(folder.glob("*.journal")):
        yield path.stem, _notes(path)


def _notes(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)
