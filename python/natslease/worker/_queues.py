"""Tasks straight from NATS."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._client import Client
from .._errors import ConfigError, Error, QueueNotFound
from .._lease import Lease
from .._queue import Queue
from .._types import Message
from ..fleet import Fleet, Identity
from ..fleet import Worker as Member
from ._task import Batch, Done, Outcome, Status, Task

log = logging.getLogger("natslease.worker")

_STATUSES: dict[str, Status] = {
    "settled": "settled",
    "gone": "gone",
    "unknown": "unknown",
    "expired": "gone",
    "invalid": "rejected",
    "rejected": "rejected",
}
_BEAT = 5.0


class QueueSource:
    """Tasks straight from NATS, from one queue or from any of many.

    The core extends the leases, also while Python computes and holds the interpreter's lock.
    """

    needs_result = False

    def __init__(
        self,
        client: Client,
        queues: str | Iterable[Queue] | Callable[[], Iterable[Queue]],
        *,
        fleet: Fleet | None = None,
        results: Queue | None = None,
        nak_delay: float = 0.0,
        refresh: float = 10.0,
        service: str | None = None,
        hostname: str | None = None,
        slot: str | int = "0",
        version: str = "",
    ) -> None:
        """No request is made.

        Args:
            client: of the queues.
            queues: which queues to serve; or a pattern such as ``"job_*"``: every consumer of the
                streams with such a name; or a function that returns queues. Those two are asked
                again when ``refresh`` seconds are over, so that jobs may come and go.
            fleet: where the worker is registered, with this client: a newer one in its place
                fences it, and what it does is recorded. Left out: nowhere.
            results: where results are published, before their tasks are acknowledged, each with its
                task's id; a result is bytes, or becomes JSON. Left out: nowhere.
            nak_delay: seconds until a task that has failed is offered again.
            refresh: see ``queues``.
            service: the worker's name; left out, ``"worker (<hostname>)"``.
            hostname: where the worker runs; left out, the host name with the PID namespace's id.
            slot: which of several workers on one host, as a rule the GPU's number.
            version: of the worker; shown to operators.
        """
        if isinstance(queues, Queue):
            raise TypeError("queues: is one queue: give a list")
        place = Identity("worker", hostname, str(slot))
        self.identity = Identity(service or f"worker ({place.host})", place.host, place.slot)
        self.name = f"{self.identity.service}/{slot}"
        self._fleet = fleet
        self._version = version
        self._member: Member | None = None
        self.ack_wait: float | None = None
        self._client = client
        self._pattern = queues if isinstance(queues, str) else ""
        self._find: Callable[[], Iterable[Queue]] | None = None
        self._queues: list[Queue] = []
        if isinstance(queues, str):
            self._find = self._matching
        elif callable(queues):
            self._find = queues
        else:
            self._queues = list(queues)
        self._results = results
        self._nak_delay = nak_delay
        self._refresh = refresh
        self._looked = 0.0

    def __repr__(self) -> str:
        return f"<QueueSource {self._client!r} as {self.name}>"

    def open(self) -> None:
        self._look()
        if self._find is None and not self._queues:
            raise ConfigError("queues: is empty", outcome="rejected")
        if self._fleet is not None:
            self._member = self._fleet.join(self.identity, version=self._version)
            log.info("%s: registered, epoch %d", self.name, self._member.epoch)

    def _matching(self) -> Iterable[Queue]:
        for stream in self._client.streams(self._pattern, consumers=True):
            for consumer in stream.consumers:
                subject = next(iter(consumer.subjects or stream.subjects), None)
                yield self._client.queue(stream.name, subject=subject, consumer=consumer.name)

    def _look(self) -> None:
        if self._find is not None and time.monotonic() - self._looked >= self._refresh:
            self._queues = list(self._find())
            self._looked = time.monotonic()

    def close(self) -> None:
        """Leaves the fleet. The client stays open: it is the caller's."""
        member, self._member = self._member, None
        if member is not None:
            try:
                member.leave()
            except Error as error:  # the fleet sees that no sign of life comes any more
                log.info("%s: could not say goodbye: %s", self.name, error)

    # Reserving.

    def reserve(self, n: int, wait: float = 0.0) -> Batch:
        self._look()
        if not self._queues:
            return Batch(retry_after=min(self._refresh, wait or self._refresh))
        if len(self._queues) == 1:
            try:
                leases = self._queues[0].reserve(n, wait=wait)
            except QueueNotFound:
                if self._find is None:
                    raise
                self._queues = []
                return Batch(retry_after=self._refresh)
        else:
            any_ = self._client.reserve_any(self._queues, n, wait=wait)
            for queue, error in any_.errors.items():
                log.warning("%s: %s: %s", self.name, queue, error)
            if any_.missing:
                self._forget(any_.missing)  # type: ignore[arg-type]
            leases = any_
        if leases:
            # The shortest of what was seen: of the one consumer, as a rule.
            left = min(leases[0].time_left, leases[-1].time_left)
            self.ack_wait = max(left, self.ack_wait or 0.0)
        return Batch([_LeaseTask(lease) for lease in leases], leases.retry_after)

    def _forget(self, missing: Sequence[Queue]) -> None:
        if self._find is None:
            log.warning("%s: not there: %s", self.name, ", ".join(q.stream for q in missing))
        else:  # until it is found again
            self._queues = [queue for queue in self._queues if queue not in missing]

    # Settling.

    def settle(self, outcomes: Sequence[Outcome]) -> list[Status]:
        if self._results is None and all(isinstance(outcome, Done) for outcome in outcomes):
            return self._ack([outcome.task for outcome in outcomes])
        statuses: dict[str, Status] = {}
        done: list[Outcome] = []
        failed: dict[tuple[str, bool], list[Task]] = {}
        for outcome in outcomes:
            if isinstance(outcome, Done):
                done.append(outcome)
            else:
                failed.setdefault((outcome.reason, outcome.retry), []).append(outcome.task)
        if done and self._results is not None:
            done = self._publish(self._results, done, failed, statuses)
        for queue, leases in _by_queue(outcome.task for outcome in done):
            self._note(statuses, leases, queue.ack(leases))
        for (reason, retry), tasks in failed.items():
            for queue, leases in _by_queue(tasks):
                if retry:
                    told = queue.nak(leases, delay=self._nak_delay, reason=reason)
                else:
                    told = queue.term(leases, reason)
                self._note(statuses, leases, told)
        return [statuses.get(outcome.task.key, "unknown") for outcome in outcomes]

    def _ack(self, tasks: Sequence[Task]) -> list[Status]:
        """As a rule, and then in one go: all are done, and of one queue."""
        queues = list(_by_queue(tasks))
        if len(queues) == 1:
            queue, leases = queues[0]
            return [_STATUSES[result.status] for result in queue.ack(leases)]
        statuses: dict[str, Status] = {}
        for queue, leases in queues:
            self._note(statuses, leases, queue.ack(leases))
        return [statuses[task.key] for task in tasks]

    def _note(
        self, statuses: dict[str, Status], leases: list[Lease], told: Iterable[object]
    ) -> None:
        for lease, result in zip(leases, told, strict=True):
            statuses[lease.ack_subject] = _STATUSES[getattr(result, "status")]  # noqa: B009

    def _publish(
        self,
        queue: Queue,
        done: list[Outcome],
        failed: dict[tuple[str, bool], list[Task]],
        statuses: dict[str, Status],
    ) -> list[Outcome]:
        """Publishes results. Returns those that are stored, whose tasks may be acknowledged."""
        messages: list[Message] = []
        sent: list[Outcome] = []
        for outcome in done:
            try:
                data = outcome.result if isinstance(outcome, Done) else None
                if not isinstance(data, bytes):
                    data = json.dumps(data, allow_nan=False).encode()
            except (TypeError, ValueError, RecursionError) as error:
                reason = f"its result is no JSON: {error}"
                failed.setdefault((reason, True), []).append(outcome.task)
                continue
            messages.append(Message(data, id=outcome.task.id or None))
            sent.append(outcome)
        stored: list[Outcome] = []
        for outcome, result in zip(sent, queue.publish(messages), strict=True):
            if result.error is None:
                stored.append(outcome)
            elif result.error.outcome == "rejected":
                reason = f"its result is refused: {result.error}"
                failed.setdefault((reason, True), []).append(outcome.task)
            else:
                statuses[outcome.task.key] = "unknown"
        return stored

    def release(self, tasks: Sequence[Task]) -> None:
        for queue, leases in _by_queue(tasks):
            left = [
                result.error
                for result in queue.release(leases)
                if result.status == "unknown" and result.error is not None
            ]
            if left:
                raise left[0]

    # Leases.

    def keep(self, tasks: Sequence[Task], max_hold: float) -> None:
        for queue, leases in _by_queue(tasks):
            queue.keep(leases, max_hold=max_hold)

    def unkeep(self, tasks: Sequence[Task]) -> None:
        for queue, leases in _by_queue(tasks):
            held = [lease for lease in leases if not lease.settled]
            if held:
                queue.unkeep(held)

    def beat(self) -> float:
        """The core gives the signs of life; this is whether the worker is still in its place."""
        if self._member is not None:
            self._member.check()
        return _BEAT


_FROM_LEASE: dict[str, Callable[[Lease], Any]] = {
    "key": lambda lease: lease.ack_subject,
    "payload": lambda lease: lease.data,
    "id": lambda lease: lease.id,
    "job": lambda lease: lease.queue.stream,
    "attempt": lambda lease: lease.attempt,
}


class _LeaseTask(Task):
    """A task that is taken out of its lease where somebody looks."""

    __slots__ = ()

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.state = 0

    def __getattr__(self, name: str) -> Any:
        read = _FROM_LEASE.get(name)
        if read is None or self.lease is None:
            raise AttributeError(name)
        value = read(self.lease)
        setattr(self, name, value)
        return value


def _by_queue(tasks: Iterable[Task]) -> Iterable[tuple[Queue, list[Lease]]]:
    queues: dict[int, tuple[Queue, list[Lease]]] = {}
    for task in tasks:
        lease: Lease = task.lease
        found = queues.get(id(lease.queue))
        if found is None:
            queues[id(lease.queue)] = (lease.queue, [lease])
        else:
            found[1].append(lease)
    return queues.values()
