"""What the fleet tells."""

from __future__ import annotations

import os

from .._client import text
from .._errors import ConfigError
from .._types import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from .._errors import Error
    from .._types import StreamInfo

    Status = Literal["online", "stale", "offline"]
    Kind = Literal["reserve", "ack", "nak", "release", "extend", "term"]
    State = Literal["leased", "expired", "done", "failed", "released", "dead"]


def default_host() -> str:
    """This machine's name, with the number of its process-id namespace.

    Containers may have the same hostname and are different hosts all the same.
    """
    host = os.uname().nodename
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (pathlib is slow to import)
    except OSError:
        return host
    return f"{host}~{namespace.removeprefix('pid:').strip('[]')}"


class Identity(Record):
    """A worker's place, which only one worker has at a time.

    Attributes:
        service: what it is called.
        host: left out, this machine; see ``default_host``.
        slot: tells workers of one service on one host apart, such as the number of a GPU.
    """

    __slots__ = ("service", "host", "slot")

    def __init__(self, service: str, host: str | None = None, slot: str = "0") -> None:
        self.service: str = text("service", service)
        self.host: str = default_host() if host is None else text("host", host)
        self.slot: str = text("slot", str(slot) if isinstance(slot, int) else slot)

    @classmethod
    def parse(cls, written: str) -> Identity:
        """Reads what ``str`` of an identity writes, "service@host/slot".

        Raises:
            ConfigError: it is none.
        """
        service, at, rest = written.rpartition("@")
        host, slash, slot = rest.rpartition("/")
        if not (at and slash and service and host and slot):
            raise ConfigError(
                f"worker: is {written!r:.200}: it is written service@host/slot", outcome="rejected"
            )
        return cls(service, host, slot)

    def __str__(self) -> str:
        return f"{self.service}@{self.host}/{self.slot}"


class WorkerInfo(Record):
    """What is known of a worker. Moments are in seconds since 1970, by the server's clock.

    Attributes:
        worker: its place, an ``Identity``.
        epoch: the number of its registration; a larger one fences it.
        status: ``"online"``, ``"stale"`` or ``"offline"``.
        last_seen: its last sign of life.
        joined_at: when it registered.
        version, info, address: what it told of itself.
        anonymous: it is of an old version, which cannot be fenced.
        left: it has ended as it should.
        stopped: why an operator has stopped it, or an empty string.
        holding: how many tasks it has, by stream.
        reserved, done, failed: how many tasks in the last 15 minutes.
        rate: tasks done per second in the last minute.
        last_task: the id of the task that it took last.
    """

    __slots__ = (
        "worker",
        "epoch",
        "status",
        "last_seen",
        "joined_at",
        "version",
        "address",
        "info",
        "anonymous",
        "left",
        "stopped",
        "holding",
        "reserved",
        "done",
        "failed",
        "rate",
        "last_task",
    )

    worker: Identity
    epoch: int
    status: Status
    last_seen: float
    joined_at: float
    version: str
    address: str
    info: dict[str, str]
    anonymous: bool
    left: bool
    stopped: str
    holding: dict[str, int]
    reserved: int
    done: int
    failed: int
    rate: float
    last_task: str

    __hash__: None = None  # type: ignore[assignment]


class Registration(Record):
    """A worker's right to its place.

    Attributes:
        worker: the place.
        epoch: what its calls name it by from now on.
        fenced: the ``WorkerInfo`` of the worker that had the place; None when nobody had.
    """

    __slots__ = ("worker", "epoch", "fenced")

    worker: Identity
    epoch: int
    fenced: WorkerInfo | None

    __hash__: None = None  # type: ignore[assignment]


class Holder(Record):
    """A worker that has, or had, tasks of a queue.

    Attributes:
        holding: how many it has.
        took: how many it ever had.
        done, failed: how many of these it has settled so.
        first_at, last_at: when it first and last did anything with them.
    """

    __slots__ = ("worker", "epoch", "holding", "took", "done", "failed", "first_at", "last_at")

    worker: Identity
    epoch: int
    holding: int
    took: int
    done: int
    failed: int
    first_at: float
    last_at: float


class TaskEvent(Record):
    """What happened to one task at one time.

    Attributes:
        kind: ``"reserve"``, ``"ack"``, ``"nak"``, ``"release"``, ``"extend"`` or ``"term"``.
        at: when, in seconds since 1970, by the server's clock.
        attempt: of a reserve; else 0.
        reason: of a nak or term.
        unsure: the server's word did not come.
    """

    __slots__ = ("kind", "at", "worker", "epoch", "attempt", "reason", "unsure")

    kind: Kind
    at: float
    worker: Identity
    epoch: int
    attempt: int
    reason: str
    unsure: bool


class TaskHistory(Record):
    """What happened to one task.

    Attributes:
        id: the publisher's; empty when it gave none.
        seq: its sequence in the stream.
        state: ``"leased"``; ``"expired"``: leased, and the lease has run out unless it is kept;
            ``"done"``; ``"failed"`` or ``"released"``, and so offered again while it has attempts;
            ``"dead"``: failed for good.
        holder: who has it; None when nobody has.
        epoch: the holder's.
        since: when it came into this state, in seconds since 1970.
        until: when its lease runs out if it is not kept; 0.0 when it has none.
        events: a ``TaskEvent`` for each thing that happened, the oldest first.
    """

    __slots__ = ("stream", "id", "seq", "state", "holder", "epoch", "since", "until", "events")

    stream: str
    id: str
    seq: int
    state: State
    holder: Identity | None
    epoch: int
    since: float
    until: float
    events: list[TaskEvent]

    __hash__: None = None  # type: ignore[assignment]

    def __str__(self) -> str:
        from datetime import datetime, timezone

        since = datetime.fromtimestamp(self.since, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
        who = self.holder or self.events[-1].worker
        by = "to" if self.holder else "by"
        return (
            f"{self.id or f'#{self.seq}'} of {self.stream}: {self.state} {by} {who} since {since}"
        )


class BatchEvent(Record):
    """One reserve, or one settling, of some tasks of a queue; as ``TaskEvent``.

    Attributes:
        seqs: the tasks.
        ids: the publisher's, of a reserve; empty when it gave none.
    """

    __slots__ = (
        "kind",
        "at",
        "worker",
        "epoch",
        "stream",
        "consumer",
        "seqs",
        "ids",
        "reason",
        "unsure",
    )

    kind: Kind
    at: float
    worker: Identity
    epoch: int
    stream: str
    consumer: str
    seqs: list[int]
    ids: list[str]
    reason: str
    unsure: bool

    __hash__: None = None  # type: ignore[assignment]


class SweepReport(Record):
    """What a sweep found and did.

    Attributes:
        orphans: a ``StreamInfo`` for each, the oldest first, at most as many as the limit.
        deleted: the names of those that were deleted.
        failed: errors by name.
        more: there are more than the limit.
    """

    __slots__ = ("orphans", "deleted", "failed", "more")

    orphans: list[StreamInfo]
    deleted: list[str]
    failed: dict[str, Error]
    more: bool

    __hash__: None = None  # type: ignore[assignment]


def read_place(fields: dict[str, Any]) -> Identity:
    """The identity that the core describes."""
    return Identity(fields["service"], fields["host"], fields["slot"])
