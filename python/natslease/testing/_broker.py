"""Queues in memory: what nats-server does with the tasks of work queues, without a server."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from natslease import Error, LeaseGone, PayloadTooLarge, QueueNotFound, Saturated, StorageFull

NS = 1_000_000_000
MAX_PAYLOAD = 1 << 20
_UNSETTLED = "its last lease ran out"
_UNSAID = "it was NAKed without a reason"
_CLOCK_SKEW = 2 * NS  # of servers: the core allows them as much

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Task:
    """A message in a stream."""

    seq: int
    id: str
    subject: str
    data: bytes
    headers: Headers
    published: int


@dataclass
class Delivery:
    """A task that is leased."""

    expires: int
    consumer_seq: int
    kept_until: int = 0
    heartbeat: int = 0  # how long after beaten it is still kept; 0: whether it is beaten or not
    beaten: int = 0

    def is_kept(self, now: int) -> bool:
        """Whether it is extended."""
        return now < self.kept_until and not (self.heartbeat and now > self.beaten + self.heartbeat)


@dataclass
class Consumer:
    """Who has which tasks, and what is to be given out."""

    name: str
    options: dict[str, Any]
    created: int
    next_seq: int = 1
    given: int = 0
    leased: dict[int, Delivery] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    again: dict[int, int] = field(default_factory=dict)  # from when a task is to be given out again


@dataclass
class Stream:
    """Tasks, and the consumers of them."""

    name: str
    options: dict[str, Any]
    created: int
    last_seq: int = 0
    last_at: int = 0
    tasks: dict[int, Task] = field(default_factory=dict)
    ids: dict[str, tuple[int, int]] = field(default_factory=dict)
    consumers: dict[str, Consumer] = field(default_factory=dict)
    subjects: list[str] = field(default_factory=list)

    def waiting(self, consumer: Consumer) -> list[int]:
        """The tasks of a consumer that were not given out yet."""
        subject, first = consumer.options["subject"], consumer.next_seq
        return [t.seq for t in self.tasks.values() if t.seq >= first and t.subject == subject]


@dataclass(frozen=True)
class Letter:
    """A task that has failed on its last attempt."""

    stream: str
    consumer: str
    task: Task
    attempts: int
    reason: str
    worker: str
    died: int

    @property
    def name(self) -> tuple[str, str, int, int]:
        return self.stream, self.consumer, self.task.seq, self.task.published


class Broker:
    """All streams. Not safe for threads: who uses it has a lock."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.letters: dict[tuple[str, str, int, int], Letter] = {}
        self.letter_streams: set[str] = set()
        self._ahead = 0
        self._last = 0

    def advance(self, nanoseconds: int) -> None:
        """Moves the clock on."""
        self._ahead += nanoseconds

    def monotonic(self) -> int:
        return time.monotonic_ns() + self._ahead

    def _wall(self) -> int:
        # No two are the same: a task is told from others by when it was published.
        self._last = max(time.time_ns() + self._ahead, self._last + 1)
        return self._last

    def stream(self, name: str) -> Stream:
        found = self.streams.get(name)
        if found is None:
            raise _not_found("the stream does not exist")
        self._forget_old(found)
        return found

    def consumer(self, stream: str, name: str) -> tuple[Stream, Consumer]:
        within = self.stream(stream)
        found = within.consumers.get(name)
        if found is None:
            raise _not_found("the consumer does not exist")
        self._run_out(within, found)
        return within, found

    def _forget_old(self, stream: Stream) -> None:
        if max_age := stream.options["max_age"]:
            oldest = self._wall() - max_age
            for seq in [t.seq for t in stream.tasks.values() if t.published < oldest]:
                self._remove(stream, seq)

    def _run_out(self, stream: Stream, consumer: Consumer) -> None:
        now = self.monotonic()
        for seq, delivery in list(consumer.leased.items()):
            if delivery.expires <= now and delivery.is_kept(now):
                delivery.expires = now + consumer.options["ack_wait"]
            elif delivery.expires <= now:
                self._fail(stream, consumer, seq, _UNSETTLED, "", delivery.expires)

    def _fail(
        self, stream: Stream, consumer: Consumer, seq: int, reason: str, worker: str, at: int
    ) -> None:
        """Ends a delivery that has used up an attempt."""
        del consumer.leased[seq]
        attempts, most = consumer.attempts[seq], consumer.options["max_deliver"]
        if 0 < most <= attempts:
            letter = Letter(
                stream.name,
                consumer.name,
                stream.tasks[seq],
                attempts,
                reason,
                worker,
                self._wall(),
            )
            if consumer.options.get("dead_letters"):
                self.letters[letter.name] = letter
            if reason is not _UNSETTLED:
                self._remove(stream, seq)
        else:
            consumer.again[seq] = at

    def publish(self, name: str, subject: str, task_id: str, data: bytes, headers: Headers) -> Any:
        """Stores a message; returns its sequence, and whether it was there already."""
        if len(data) > MAX_PAYLOAD:
            raise PayloadTooLarge(
                f"the payload has {len(data):,} bytes: the server accepts {MAX_PAYLOAD:,}",
                outcome="rejected",
            )
        stream = self.stream(name)
        if subject not in stream.subjects:
            raise _not_found(f"no stream takes {subject}")
        now = self._wall()
        options = stream.options
        known = stream.ids.get(task_id)
        if known is not None and now - known[1] < options["duplicate_window"]:
            return known[0], True
        self._make_room(stream, len(data))
        stream.last_seq, stream.last_at = stream.last_seq + 1, now
        task = Task(stream.last_seq, task_id, subject, data, headers, now)
        stream.tasks[task.seq] = task
        stream.ids[task_id] = (task.seq, now)
        return task.seq, False

    def _make_room(self, stream: Stream, size: int) -> None:
        options = stream.options
        while True:
            held = (
                sum(len(task.data) for task in stream.tasks.values()) if options["max_bytes"] else 0
            )
            crowded = 0 < options["max_messages"] <= len(stream.tasks)
            if not crowded and not (options["max_bytes"] and held + size > options["max_bytes"]):
                return
            if options["discard"] == "new" or not stream.tasks:
                raise StorageFull("the stream is full", outcome="rejected")
            self._remove(stream, next(iter(stream.tasks)))

    def reserve(self, stream: str, name: str, n: int) -> list[tuple[Task, Delivery, int, int]]:
        """Leases up to n tasks: each with its delivery, attempt, and how many are behind it.

        Raises:
            Saturated: there may be tasks, but max_ack_pending is reached.
        """
        within, consumer = self.consumer(stream, name)
        room = consumer.options["max_ack_pending"] - len(consumer.leased)
        if room <= 0:
            raise Saturated(
                "max_ack_pending is reached: settle leases first",
                outcome="not_sent",
                retry_after=0.25,
            )
        now = self.monotonic()
        seqs = [seq for seq, at in consumer.again.items() if at <= now][: min(n, room)]
        for seq in seqs:
            del consumer.again[seq]
        fresh = within.waiting(consumer)[: min(n, room) - len(seqs)]
        if fresh:
            consumer.next_seq = fresh[-1] + 1
        taken = []
        for seq in seqs + fresh:
            consumer.given += 1
            consumer.attempts[seq] = consumer.attempts.get(seq, 0) + 1
            delivery = Delivery(now + consumer.options["ack_wait"], consumer.given)
            consumer.leased[seq] = delivery
            behind = len(within.waiting(consumer))
            taken.append((within.tasks[seq], delivery, consumer.attempts[seq], behind))
        return taken

    def due(self, stream: str, name: str) -> int | None:
        """When something may be there to reserve, of the monotonic clock; None: nobody knows."""
        _, consumer = self.consumer(stream, name)
        moments = [*consumer.again.values(), *(d.expires for d in consumer.leased.values())]
        return min(moments, default=None)

    def settle(
        self, kind: str, said: Any, expires: int, delay: int, reason: str, worker: str
    ) -> Any:
        """Settles a delivery; returns whether it was late, and when an extended one runs out.

        Raises:
            LeaseGone: stream or consumer do not exist, or were made anew since.
            LookupError: the lease ran out, and the task may be somebody else's.
        """
        try:
            stream, consumer = self.consumer(said["stream"], said["consumer"])
        except QueueNotFound as error:
            raise LeaseGone(str(error), outcome="rejected") from None
        if not expires and said["published"] < stream.created - _CLOCK_SKEW:
            raise LeaseGone(
                "its queue was deleted, and one of the same name was made", outcome="rejected"
            )
        late = bool(expires) and expires < self.monotonic()
        if late and kind != "ack":
            raise LookupError
        seq = said["seq"]
        if seq not in stream.tasks:
            return late, 0
        if kind in ("ack", "term"):
            consumer.leased.pop(seq, None)
            consumer.again.pop(seq, None)
            if stream.options["retention"] == "workqueue":
                self._remove(stream, seq)
            return late, 0
        delivery = consumer.leased.get(seq)
        if delivery is None:
            return late, 0
        if kind == "extend":
            delivery.expires = self.monotonic() + consumer.options["ack_wait"]
            return late, delivery.expires
        if kind == "release":
            # A release never wears a task out: it is as if it had not been given out, but told.
            most = consumer.options["max_deliver"]
            if 0 < most <= consumer.attempts[seq]:
                consumer.attempts[seq] = 0
            del consumer.leased[seq]
            consumer.again[seq] = self.monotonic()
            return late, 0
        said_why = " ".join(reason.split()) or _UNSAID
        self._fail(stream, consumer, seq, said_why, worker, self.monotonic() + delay)
        return late, 0

    def _remove(self, stream: Stream, seq: int) -> None:
        stream.tasks.pop(seq, None)
        for consumer in stream.consumers.values():
            for of_consumer in (consumer.leased, consumer.attempts, consumer.again):
                of_consumer.pop(seq, None)

    def purge(self, name: str, subject: str) -> int:
        stream = self.stream(name)
        seqs = [task.seq for task in stream.tasks.values() if task.subject == subject]
        for seq in seqs:
            self._remove(stream, seq)
        return len(seqs)

    def matching(self, pattern: str) -> Iterable[Stream]:
        return (self.streams[n] for n in sorted(self.streams) if fnmatchcase(n, pattern))


def _not_found(text: str) -> Error:
    return QueueNotFound(f"{text}: create it with ensure()", outcome="rejected")
