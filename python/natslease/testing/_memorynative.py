"""The operations of the core on queues in memory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import natslease
from natslease import Client, Error, QueueNotFound, Saturated
from natslease._native import native

from . import _memorywire as wire
from ._broker import NS, Broker, Consumer, Delivery, Stream
from ._memorycalls import Calls

_KINDS = {1: "ack", 2: "nak", 4: "extend", 5: "term"}
_MOST = 10_000
_DEFAULTS: dict[str, Any] = {
    "ack_wait": 60 * NS,
    "discard": "new",
    "duplicate_window": 120 * NS,
    "max_ack_pending": 1000,
    "max_age": 0,
    "max_bytes": 0,
    "max_deliver": 5,
    "max_messages": 0,
    "replicas": 1,
    "retention": "workqueue",
    "storage": "file",
}
_OF_CONSUMERS = ("ack_wait", "max_ack_pending", "max_deliver")


class Native(Calls):
    """What clients take for the compiled extension; natslease._native.Native has the same names."""

    def __init__(self) -> None:
        super().__init__()
        self.pid = os.getpid()
        self.generation = 0
        self.numbers = count(1)
        self._broker = Broker()
        self._clients: dict[int, dict[str, Any]] = {}
        self._queues: dict[int, dict[str, Any]] = {}
        # The core looks at options: the same errors for the same mistakes.
        self._checker = Client("nats://memory.invalid")
        self.parse_ack_subject = native().parse_ack_subject

    def is_usable(self) -> bool:
        return True

    # Clients and queues

    def open(self, number: int, body: bytes) -> bytes:
        core, checked = native(), next(native().numbers)
        answer = core.open(checked, body)
        if answer[0] != wire.DONE:
            return answer
        core.forget_client(checked, NS)
        self._clients[number] = json.loads(body)
        return answer

    def open_queue(self, number: int, client: int, body: bytes) -> bytes:
        core, checked = native(), next(native().numbers)
        answer = core.open_queue(checked, self._checker._attach().number, body)
        if answer[0] != wire.DONE:
            return answer
        core.forget_queue(checked)
        options = {**_DEFAULTS, **json.loads(body)}
        options.setdefault("subject", options["stream"])
        options.setdefault("consumer", options["stream"])
        self._queues[number] = {**options, "worker": self._clients[client].get("name", "")}
        return answer

    def forget_client(self, number: int, _timeout: int) -> int:
        return 1 if self._clients.pop(number, None) else 0

    def forget_queue(self, number: int) -> int:
        return 1 if self._queues.pop(number, None) else 0

    def open_fleet(self, _number: int, _client: int, _config: bytes) -> bytes:
        return wire.error(
            natslease.ConfigError(
                "queues in memory have no fleet: use a server", outcome="rejected"
            )
        )

    def forget_fleet(self, _number: int) -> int:
        return 0

    def close_client(self, *call: int) -> bytes:
        self._clients.pop(call[4], None)
        return wire.done()

    def ping(self, *call: int) -> bytes:
        return self._answer(call, lambda: wire.numbers(1000))

    def stats(self, _client: int) -> bytes:
        with self._changed:
            kept = sum(
                d.is_kept(self._broker.monotonic())
                for stream in self._broker.streams.values()
                for consumer in stream.consumers.values()
                for d in consumer.leased.values()
            )
        return wire.stats(connected=self.failure is None, kept=kept)

    def logs(self) -> bytes:
        return wire.value({"records": [], "dropped": 0})

    def await_detached(self, _timeout: int) -> int:
        return 0

    # Operations

    def _queue(self, number: int) -> dict[str, Any]:
        return self._queues[number]

    def ensure(self, *call: Any) -> bytes:
        options, conflict = self._queue(call[4]), call[5].decode()
        return self._answer(call, lambda: self._ensure(options, conflict))

    def _ensure(self, options: dict[str, Any], conflict: str) -> bytes:
        broker, now = self._broker, time.time_ns()
        stream = broker.streams.get(options["stream"])
        created = stream is None
        if stream is None:
            stream = Stream(options["stream"], options, now, subjects=[options["subject"]])
            broker.streams[stream.name] = stream
        elif options["subject"] not in stream.subjects:
            if conflict == "keep":
                raise natslease.ConfigError(
                    f"stream {stream.name} takes {', '.join(stream.subjects)}, not the queue's "
                    f"subject {options['subject']}: change the subject, or use conflict=update",
                    outcome="rejected",
                )
            stream.subjects.append(options["subject"])
        consumer = stream.consumers.get(options["consumer"])
        if consumer is None:
            created = True
            consumer = Consumer(options["consumer"], options, now)
            stream.consumers[consumer.name] = consumer
        different = [
            name
            for name in _DEFAULTS
            if (consumer if name in _OF_CONSUMERS else stream).options[name] != options[name]
        ]
        if different and conflict == "error":
            raise natslease.ConfigError(
                f"the queue exists with another {', '.join(different)}", outcome="rejected"
            )
        if conflict == "update":
            stream.options, consumer.options = options, options
        if letters := options.get("dead_letters"):
            broker.letter_streams.add(letters)
            consumer.options = {**consumer.options, "dead_letters": letters}
        return wire.info(stream, consumer, created=created)

    def info(self, *call: int) -> bytes:
        options = self._queue(call[4])
        return self._answer(
            call,
            lambda: wire.info(*self._broker.consumer(options["stream"], options["consumer"])),
        )

    def purge(self, *call: int) -> bytes:
        options = self._queue(call[4])
        return self._answer(
            call, lambda: wire.value(self._broker.purge(options["stream"], options["subject"]))
        )

    def delete(self, *call: int) -> bytes:
        options, streams = self._queue(call[4]), self._broker.streams

        def delete() -> bytes:
            stream = streams.get(options["stream"])
            if stream is None:
                return wire.value(False)
            existed = stream.consumers.pop(options["consumer"], None) is not None
            if not stream.consumers:
                del streams[stream.name]
            return wire.value(existed or not stream.consumers)

        return self._answer(call, delete)

    def account(self, *call: int) -> bytes:
        return self._answer(call, lambda: wire.account(self._broker.streams.values()))

    def delete_stream(self, *call: Any) -> bytes:
        name, streams = call[5].decode(), self._broker.streams
        return self._answer(call, lambda: wire.value(streams.pop(name, None) is not None))

    def delete_consumer(self, *call: int) -> bytes:
        options = self._queue(call[4])

        def delete() -> bytes:
            stream = self._broker.streams.get(options["stream"])
            found = stream and stream.consumers.pop(options["consumer"], None)
            return wire.value(bool(found))

        return self._answer(call, delete)

    def streams(self, *call: Any) -> bytes:
        asked = json.loads(call[5])
        if problem := wire.filter_problem(asked):
            return problem

        def look() -> bytes:
            found = self._broker.matching(asked["pattern"])
            subject = asked.get("subject")
            kept = [s for s in found if not subject or subject in s.subjects]
            return wire.streams(kept, consumers=asked["consumers"])

        return self._answer(call, look)

    def publish(self, *call: Any) -> bytes:
        options = self._queue(call[4])

        def publish() -> bytes:
            results = []
            for data, task_id, headers in wire.read_messages(call[5]):
                name = task_id or f"{next(self.numbers)}.{os.urandom(8).hex()}"
                try:
                    wire.check_headers(headers)
                    whole = (*headers, (wire.MESSAGE_ID, name))
                    stored = self._broker.publish(
                        options["stream"], options["subject"], name, data, whole
                    )
                    results.append((name, *stored, None))
                except Error as error:
                    results.append((name, 0, False, error))
            return wire.report(results)

        return self._answer(call, publish)

    def reserve(self, *call: int) -> bytes:
        queue, n, wait = call[4:]
        options = self._queue(queue)
        if problem := wire.range_problem("n", n, _MOST):
            return problem
        place = (options["stream"], options["consumer"])

        def attempt(last: bool) -> bytes | None:
            try:
                taken = self._broker.reserve(*place, n)
            except Saturated:
                if last:
                    raise
                return None
            if not taken and not last:
                return None
            if taken:
                self._untaken[call[0]] = [wire.said(place, lease) for lease in taken]
            return wire.leases([(place, lease) for lease in taken], retry_after=0 if taken else 1)

        return self._await(call, wait, attempt)

    def reserve_any(self, *call: Any) -> bytes:
        _client, n, wait, body = call[4:]
        if problem := wire.range_problem("n", n, _MOST):
            return problem
        if not body:
            empty = natslease.ConfigError("queues is empty: name at least one", outcome="rejected")
            return wire.error(empty)
        places = [
            (options["stream"], options["consumer"])
            for options in map(self._queue, wire.read_numbers(body))
        ]

        def attempt(last: bool) -> bytes | None:
            found: list[Any] = []
            asked: list[int] = []
            missing, errors = [], {}
            for i, place in enumerate(places):
                try:
                    taken = self._broker.reserve(*place, n - len(found)) if n > len(found) else []
                except QueueNotFound:  # noqa: PERF203
                    missing.append(i)
                except Error as error:
                    errors[i] = error
                else:
                    found += [(place, lease) for lease in taken]
                    asked += [i] * len(taken)
            wrong = len(missing) + len(errors)
            if wrong == len(places) and last:
                first = next(iter(errors.values()), None)
                raise first or QueueNotFound("none of the queues exists", outcome="rejected")
            if not found and not last and len(missing) < len(places):
                return None
            if len(missing) == len(places):
                raise QueueNotFound("none of the queues exists", outcome="rejected")
            if found:
                self._untaken[call[0]] = [wire.said(place, lease) for place, lease in found]
            return wire.any_leases(found, asked, missing, errors)

        return self._await(call, wait, attempt)

    def settle(self, *call: Any) -> bytes:
        queue, kind, delay, body = call[4:]
        items, reason = wire.read_items(body)
        return self._settle(call, queue, _KINDS[kind], items, delay, reason)

    def release(self, *call: Any) -> bytes:
        return self._settle(call, call[4], "release", wire.read_returns(call[5]), 0, "")

    def _settle(
        self,
        call: tuple[Any, ...],
        queue: int,
        kind: str,
        items: list[tuple[int, bytes]],
        delay: int,
        reason: str,
    ) -> bytes:
        options = self._queue(queue)

        def settle() -> bytes:
            results: list[tuple[str, bool, int, Error | None]] = []
            for expires, subject in items:
                said = self._said(subject, options)
                if isinstance(said, Error):
                    results.append(("invalid", False, 0, said))
                else:
                    results.append(
                        self._settle_one(kind, said, expires, delay, reason, options["worker"])
                    )
            return wire.results(results, kind)

        return self._answer(call, settle)

    def _said(self, subject: bytes, options: dict[str, Any]) -> dict[str, Any] | Error:
        """What an ack subject says, or why it is no lease of the queue."""
        answer = self.parse_ack_subject(subject)
        if answer[0] != wire.DONE:
            return wire.read_error(answer)
        said: dict[str, Any] = wire.read_value(answer)
        if (said["stream"], said["consumer"]) == (options["stream"], options["consumer"]):
            return said
        return natslease.InvalidLease(
            f"it is not a lease of the queue {options['stream']}", outcome="rejected"
        )

    def _settle_one(
        self, kind: str, said: dict[str, Any], expires: int, delay: int, reason: str, worker: str
    ) -> tuple[str, bool, int, Error | None]:
        kept = self._kept(said)
        try:
            late, until = self._broker.settle(kind, said, kept or expires, delay, reason, worker)
        except LookupError as error:
            if isinstance(error, Error):
                raise
            expired = natslease.LeaseExpired(
                "the lease ran out: the task may be somebody else's now (nothing was sent)",
                outcome="rejected",
            )
            return "expired", False, 0, expired
        except natslease.LeaseGone as error:
            return "gone", False, 0, error
        return "settled", late, until, None

    def _give_back(self, leases: Sequence[dict[str, Any]]) -> None:
        for said in leases:
            self._settle_one("release", said, 0, 0, "", "")

    def _kept(self, said: dict[str, Any]) -> int:
        """When a lease that is kept runs out; 0 for others."""
        try:
            _, consumer = self._broker.consumer(said["stream"], said["consumer"])
        except QueueNotFound:
            return 0
        delivery = consumer.leased.get(said["seq"])
        return delivery.expires if delivery is not None and delivery.kept_until else 0

    def keep(self, queue: int, max_hold: int, heartbeat: int, body: bytes) -> bytes:
        now = self._broker.monotonic()

        def keep(delivery: Delivery) -> None:
            delivery.kept_until, delivery.heartbeat, delivery.beaten = (
                now + max_hold,
                heartbeat,
                now,
            )

        return self._each(queue, body, keep)

    def beat(self, queue: int, body: bytes) -> bytes:
        now = self._broker.monotonic()

        def beat(delivery: Delivery) -> None:
            delivery.beaten = now

        if wire.read_items(body)[0]:
            return self._each(queue, body, beat)
        options = self._queue(queue)
        with self._changed:
            stream = self._broker.streams.get(options["stream"])
            consumer = stream and stream.consumers.get(options["consumer"])
            for delivery in consumer.leased.values() if consumer else ():
                beat(delivery)
        return wire.done()

    def unkeep(self, queue: int, body: bytes) -> bytes:
        def unkeep(delivery: Delivery) -> None:
            delivery.kept_until = 0

        return self._each(queue, body, unkeep)

    def kept(self, queue: int, body: bytes) -> bytes:
        items, _ = wire.read_items(body)
        with self._changed:
            return wire.numbers(
                *(self._kept(wire.read_value(self.parse_ack_subject(s))) for _, s in items)
            )

    def _each(self, queue: int, body: bytes, change: Callable[[Delivery], None]) -> bytes:
        items, _ = wire.read_items(body)
        options = self._queue(queue)
        with self._changed:
            for _, subject in items:
                said = self._said(subject, options)
                if isinstance(said, Error):
                    return wire.error(said)
                stream = self._broker.streams.get(options["stream"])
                consumer = stream and stream.consumers.get(options["consumer"])
                delivery = consumer and consumer.leased.get(said["seq"])
                if delivery:
                    change(delivery)
        return wire.done()

    # Dead letters

    def _letters(self, options: dict[str, Any]) -> list[Any]:
        letters = options.get("dead_letters")
        if not letters:
            raise natslease.ConfigError(
                "the queue keeps no dead letters: its option dead_letters names no stream",
                outcome="rejected",
            )
        if letters not in self._broker.letter_streams:
            raise QueueNotFound(
                f"the stream {letters} of the dead letters does not exist: create it with ensure()",
                outcome="rejected",
            )
        self._broker.consumer(options["stream"], options["consumer"])
        own = (options["stream"], options["consumer"])
        return [x for x in self._broker.letters.values() if (x.stream, x.consumer) == own]

    def dead_letters(self, *call: int) -> bytes:
        options, limit = self._queue(call[4]), call[5]
        if problem := wire.range_problem("limit", limit, _MOST):
            return problem
        return self._answer(call, lambda: wire.letters(self._letters(options)[:limit]))

    def requeue(self, *call: Any) -> bytes:
        options = self._queue(call[4])

        def requeue() -> bytes:
            own = {letter.name: letter for letter in self._letters(options)}
            results: list[tuple[str, int, bool, Error | None]] = []
            for name in wire.read_names(call[5]):
                letter = own.get(name)
                if name[:2] != (options["stream"], options["consumer"]):
                    other = natslease.ConfigError(
                        f"letters: one is of the queue {name[0]}", outcome="rejected"
                    )
                    results.append(("", 0, False, other))
                    continue
                if letter is None:
                    gone = natslease.LeaseGone("the letter is no longer there", outcome="rejected")
                    results.append(("", 0, False, gone))
                    continue
                task, fresh = letter.task, os.urandom(8).hex()
                headers = [(k, v) for k, v in task.headers if k != wire.MESSAGE_ID]
                seq, _ = self._broker.publish(
                    options["stream"],
                    task.subject,
                    fresh,
                    task.data,
                    (*headers, (wire.MESSAGE_ID, fresh), (wire.ORIGINAL_ID, task.id)),
                )
                self._bury(letter)
                results.append((fresh, seq, False, None))
            return wire.report(results)

        return self._answer(call, requeue)

    def discard(self, *call: Any) -> bytes:
        options = self._queue(call[4])

        def discard() -> bytes:
            own = {letter.name: letter for letter in self._letters(options)}
            found = [own[name] for name in set(wire.read_names(call[5])) if name in own]
            for letter in found:
                self._bury(letter)
            return wire.value(len(found))

        return self._answer(call, discard)

    def _bury(self, letter: Any) -> None:
        del self._broker.letters[letter.name]
        stream = self._broker.streams.get(letter.stream)
        if stream is not None and letter.task.seq in stream.tasks:
            self._broker._remove(stream, letter.task.seq)

    def advance(self, seconds: float) -> None:
        with self._changed:
            self._broker.advance(int(seconds * NS))
            self._changed.notify_all()
