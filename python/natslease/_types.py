"""What calls take and return, apart from leases."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Literal, Protocol, overload

    from ._errors import Error

    class ReportPart(Protocol):
        """The results of some of a call's messages."""

        n: int

        def id(self, i: int) -> str: ...
        def seq(self, i: int) -> int: ...
        def duplicate(self, i: int) -> bool: ...
        def error(self, i: int) -> Error | None: ...

    Status = Literal["settled", "gone", "unknown", "expired", "invalid", "rejected"]
    Conflict = Literal["keep", "update", "error"]


class Record:
    """A value with named fields."""

    __slots__: tuple[str, ...] = ()

    def __init__(self, **fields: Any) -> None:
        for name in self.__slots__:
            setattr(self, name, fields[name])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__slots__))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class Message(Record):
    """A task to publish.

    Attributes:
        data: the payload, up to the server's ``max_payload``.
        id: names the task. Within the stream's duplicate window, 2 minutes by default, the server
            stores only one message of the same id. An id is made where there is none.
        headers: names and values, or lists of values.
    """

    __slots__ = ("data", "id", "headers")

    def __init__(
        self,
        data: bytes | bytearray | memoryview,
        id: str | None = None,  # noqa: A002
        headers: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        self.data: bytes | bytearray | memoryview = data
        self.id: str | None = id
        self.headers: Mapping[str, str | Sequence[str]] | None = headers


class PublishResult(Record):
    """What became of one message.

    Attributes:
        index: its place among the messages of the call, from 0.
        id: the id that it was sent with.
        seq: its sequence in the stream; of the earlier message when it is a duplicate; 0 when it
            failed.
        error: why it failed; ``error.outcome`` tells whether it may be in the queue nevertheless.
    """

    __slots__ = ("index", "id", "seq", "error")

    def __init__(self, index: int, id: str, seq: int, error: Error | None) -> None:  # noqa: A002
        self.index: int = index
        self.id: str = id
        self.seq: int = seq
        self.error: Error | None = error


class PublishReport(Sequence["PublishResult"]):
    """A result for every message, in their order.

    Attributes:
        accepted: what is newly in the queue: the server has said so.
        duplicates: what the server already had under the same id.
        failed: what failed, each with its error.
    """

    __slots__ = ("_parts", "_starts")

    def __init__(self, parts: Sequence[ReportPart]) -> None:
        self._parts = parts
        self._starts = [0]
        for part in parts:
            self._starts.append(self._starts[-1] + part.n)

    def __len__(self) -> int:
        return self._starts[-1]

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, index: int) -> PublishResult: ...
        @overload
        def __getitem__(self, index: slice) -> list[PublishResult]: ...

    def __getitem__(self, index: int | slice) -> PublishResult | list[PublishResult]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        k = bisect_right(self._starts, i) - 1
        return self._result(k, i - self._starts[k])

    def __iter__(self) -> Iterator[PublishResult]:
        for k, part in enumerate(self._parts):
            for i in range(part.n):
                yield self._result(k, i)

    def _result(self, k: int, i: int) -> PublishResult:
        part = self._parts[k]
        return PublishResult(self._starts[k] + i, part.id(i), part.seq(i), part.error(i))

    def _where(self, *, duplicate: bool) -> list[PublishResult]:
        return [
            self._result(k, i)
            for k, part in enumerate(self._parts)
            for i in range(part.n)
            if part.error(i) is None and part.duplicate(i) == duplicate
        ]

    @property
    def accepted(self) -> list[PublishResult]:
        return self._where(duplicate=False)

    @property
    def duplicates(self) -> list[PublishResult]:
        return self._where(duplicate=True)

    @property
    def failed(self) -> list[PublishResult]:
        return [r for r in self if r.error is not None]

    def __repr__(self) -> str:
        return (
            f"<PublishReport: {len(self.accepted)} accepted, {len(self.duplicates)} duplicates, "
            f"{len(self.failed)} failed>"
        )


class DeadLetter:
    """A task that has failed on its last attempt.

    Attributes:
        stream: says with ``consumer``, ``seq`` and ``published_at`` which task it was.
        subject: of the task, as ``id`` and ``data``; ``headers`` and ``header_values()`` as those
            of a lease.
        attempts: how often it was given out.
        reason: what the last ``nak`` said, or that the last lease ran out.
        worker: the name of the last taker's connection; "" when the last lease ran out.
        died_at: when it was given up, in seconds since 1970.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    @property
    def stream(self) -> str:
        return str(self._fields["stream"])

    @property
    def consumer(self) -> str:
        return str(self._fields["consumer"])

    @property
    def seq(self) -> int:
        return int(self._fields["seq"])

    @property
    def published_at(self) -> float:
        return int(self._fields["published"]) / 1e9

    @property
    def subject(self) -> str:
        return str(self._fields["subject"])

    @property
    def id(self) -> str:
        return str(self._fields["id"])

    @property
    def data(self) -> bytes:
        return bytes(self._fields["data"])

    def json(self) -> Any:
        """The payload, parsed as JSON.

        Raises:
            ValueError: it is not JSON.
        """
        from json import loads

        return loads(self.data)

    @property
    def headers(self) -> dict[str, str]:
        return dict(reversed(self._fields["headers"]))

    def header_values(self, name: str) -> list[str]:
        """All values of a header, in their order."""
        return [value for key, value in self._fields["headers"] if key == name]

    @property
    def attempts(self) -> int:
        return int(self._fields["attempts"])

    @property
    def reason(self) -> str:
        return str(self._fields["reason"])

    @property
    def worker(self) -> str:
        return str(self._fields["worker"])

    @property
    def died_at(self) -> float:
        return int(self._fields["died"]) / 1e9

    def _name(self) -> dict[str, Any]:
        return {key: self._fields[key] for key in ("stream", "consumer", "seq", "published")}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DeadLetter):
            return NotImplemented
        return self._name() == other._name()

    def __hash__(self) -> int:
        return hash(tuple(self._name().values()))

    def __repr__(self) -> str:
        return (
            f"<DeadLetter {self.id or self.seq} of {self.stream}: {self.attempts} attempts, "
            f"{self.reason}>"
        )


class AckSubject(Record):
    """What an ack subject says: which delivery of which task it settles.

    Attributes:
        stream: of the queue, as ``consumer``.
        seq: the task's sequence in the stream.
        attempt: how often the task had been given out, this delivery included.
        consumer_seq: the delivery's number.
        published: when the task was published, in nanoseconds since 1970: exact, so that with
            ``stream`` and ``seq`` it names the task.
        domain: the JetStream domain; "" where there is none, or it is not said.
    """

    __slots__ = ("stream", "consumer", "seq", "attempt", "consumer_seq", "published", "domain")

    stream: str
    consumer: str
    seq: int
    attempt: int
    consumer_seq: int
    published: int
    domain: str


class SettleResult(Record):
    """How settling one lease ended.

    Attributes:
        status: ``"settled"``: the server has confirmed it; ``"gone"``: stream or consumer no longer
            exist, which the server has confirmed, or others of their names do; ``"unknown"``: no
            word from the server by the deadline, it may have happened; ``"expired"``: the lease ran
            out and what was asked could harm its next holder, nothing was sent; ``"invalid"``: not
            a lease of this queue, nothing was sent; ``"rejected"``: the server refused.
        late: an ack that was sent after its lease had run out: somebody else may have the task too.
        error: None when settled.
    """

    __slots__ = ("status", "late", "error")

    def __init__(self, status: Status, late: bool = False, error: Error | None = None) -> None:
        self.status = status
        self.late: bool = late
        self.error: Error | None = error


class QueueInfo(Record):
    """What the server says of a queue. Times are in seconds, ``stream_created`` since 1970.

    Attributes:
        created: whether this call to ``ensure`` has created the stream or the consumer.
        num_pending: tasks that wait to be reserved.
        num_ack_pending: tasks that are leased.
        leader: the server that leads the consumer; empty where there is no cluster.
    """

    __slots__ = (
        "stream",
        "subject",
        "consumer",
        "created",
        "stream_created",
        "messages",
        "bytes",
        "first_seq",
        "last_seq",
        "num_pending",
        "num_ack_pending",
        "num_redelivered",
        "num_waiting",
        "ack_wait",
        "max_deliver",
        "max_ack_pending",
        "retention",
        "storage",
        "replicas",
        "leader",
    )

    stream: str
    subject: str
    consumer: str
    created: bool
    stream_created: float
    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    num_pending: int
    num_ack_pending: int
    num_redelivered: int
    num_waiting: int
    ack_wait: float
    max_deliver: int
    max_ack_pending: int
    retention: str
    storage: str
    replicas: int
    leader: str


class AccountInfo(Record):
    """What the server says of the account's use of JetStream. Limits are -1 where there is none.

    Attributes:
        memory: bytes in use, as ``storage``.
        max_memory: 0, as all the limits, where they depend on how many replicas a stream has.
        api_total: requests so far; ``api_errors`` of them were refused.
        domain: the JetStream domain; "" where there is none.
    """

    __slots__ = (
        "memory",
        "storage",
        "streams",
        "consumers",
        "max_memory",
        "max_storage",
        "max_streams",
        "max_consumers",
        "api_total",
        "api_errors",
        "domain",
    )

    memory: int
    storage: int
    streams: int
    consumers: int
    max_memory: int
    max_storage: int
    max_streams: int
    max_consumers: int
    api_total: int
    api_errors: int
    domain: str


class StreamInfo(Record):
    """What the server says of a stream. Times are in seconds, moments since 1970.

    Attributes:
        subjects: what it takes.
        first_at: when the oldest message was stored; 0.0 when there is none.
        last_at: when the newest one was, though it may be gone; 0.0 when there was none.
        max_age: how long messages stay; 0.0 without a limit.
        leader: the server that leads it; empty where there is no cluster.
        away: servers whose replica is offline, or is not heard by the leader.
        consumers: a ``ConsumerInfo`` for each; empty unless they were asked for.
        told: when the server said so, by its own clock.
    """

    __slots__ = (
        "name",
        "subjects",
        "created",
        "messages",
        "bytes",
        "first_seq",
        "last_seq",
        "first_at",
        "last_at",
        "retention",
        "storage",
        "replicas",
        "max_age",
        "leader",
        "away",
        "num_consumers",
        "consumers",
        "told",
    )

    name: str
    subjects: list[str]
    created: float
    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    first_at: float
    last_at: float
    retention: str
    storage: str
    replicas: int
    max_age: float
    leader: str
    away: list[str]
    num_consumers: int
    consumers: list[ConsumerInfo]
    told: float


class ConsumerInfo(Record):
    """What the server says of a consumer. Times are in seconds, ``created`` since 1970.

    Attributes:
        subjects: those of the stream's that it is limited to; empty: all.
        num_pending: tasks that wait to be reserved.
        num_ack_pending: tasks that are leased.
        num_redelivered: tasks that were given out more than once and are not settled.
        num_waiting: pulls that wait for a task.
        away: servers whose replica is offline, or is not heard by the leader.
    """

    __slots__ = (
        "stream",
        "name",
        "subjects",
        "created",
        "num_pending",
        "num_ack_pending",
        "num_redelivered",
        "num_waiting",
        "ack_wait",
        "max_deliver",
        "max_ack_pending",
        "away",
    )

    stream: str
    name: str
    subjects: list[str]
    created: float
    num_pending: int
    num_ack_pending: int
    num_redelivered: int
    num_waiting: int
    ack_wait: float
    max_deliver: int
    max_ack_pending: int
    away: list[str]


class StreamList(list["StreamInfo"]):
    """Streams by name.

    Attributes:
        missing: names of streams of a cluster that have no leader, or whose servers did not answer.
    """

    missing: list[str]


class BreakerStats(Record):
    """The circuit breaker.

    Attributes:
        state: ``"closed"``, ``"open"`` or ``"half-open"``.
        opened: how often it has opened.
        retry_after: seconds until the next attempt to connect; 0.0 unless it is open.
    """

    __slots__ = (
        "state",
        "consecutive_failures",
        "opened",
        "retry_after",
    )

    state: str
    consecutive_failures: int
    opened: int
    retry_after: float


class Stats(Record):
    """A client's connection and what it has done; asking costs no request.

    Attributes:
        generation: of the newest connection; counts those opened so far.
        server: its URL, without credentials.
        in_flight: calls under way, of all clients that share the connection.
        in_messages: of the newest connection, like the next three.
        late_messages: tasks that arrived after their call had given up.
        queues: consumers of which something is remembered.
        kept: leases that are extended until they are settled.
        goroutines: of the Go core in this process, for all clients; few, and not growing.
        last_error: what last went wrong with a connection.
    """

    __slots__ = (
        "connected",
        "generation",
        "server",
        "server_name",
        "server_version",
        "in_flight",
        "sessions_opened",
        "sessions_lost",
        "dial_failures",
        "in_messages",
        "out_messages",
        "in_bytes",
        "out_bytes",
        "late_messages",
        "queues",
        "kept",
        "goroutines",
        "last_error",
        "breaker",
    )

    connected: bool
    generation: int
    server: str
    server_name: str
    server_version: str
    in_flight: int
    sessions_opened: int
    sessions_lost: int
    dial_failures: int
    in_messages: int
    out_messages: int
    in_bytes: int
    out_bytes: int
    late_messages: int
    queues: int
    kept: int
    goroutines: int
    last_error: str
    breaker: BreakerStats
