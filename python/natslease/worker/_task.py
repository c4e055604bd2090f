"""What a worker handles, and what comes of it."""

from __future__ import annotations

from typing import Any, Literal

from .._types import Record

#: What has become of an outcome that was given to a source. ``"unknown"``: try again; it may have
#: happened. ``"gone"``: the queue or the job is no longer there. ``"rejected"``: it never will.
Status = Literal["settled", "gone", "unknown", "rejected"]


class Task:
    """A task that this process holds.

    Attributes:
        key: names the lease: what is sent back to settle it. Unique among what a process holds.
        id: the task's id, "" when it has none.
        job: what the task belongs to: the job's number over HTTP, the stream over NATS.
        payload: what is to be done: over HTTP the task's JSON object with all its fields, over NATS
            the bytes.
        attempt: how often it was given out, this time included; 0 when that is not known.

    Tasks travel in pickles, without the lease: another process of the same worker can work on them,
    and settle them through the process that reserved them.
    """

    __slots__ = ("key", "id", "job", "payload", "attempt", "lease", "state")

    def __init__(
        self,
        key: str,
        payload: Any,
        id: str = "",  # noqa: A002
        job: str = "",
        attempt: int = 0,
        lease: Any = None,
    ) -> None:
        self.key = key
        self.payload = payload
        self.id = id
        self.job = job
        self.attempt = attempt
        self.lease = lease  # the source's
        self.state = 0  # the custody's

    def json(self) -> Any:
        """The payload, parsed where it is bytes.

        Raises:
            ValueError: it is not JSON.
        """
        if isinstance(self.payload, (bytes, str)):
            from json import loads

            return loads(self.payload)
        return self.payload

    def __reduce__(self) -> tuple[Any, ...]:
        return Task, (self.key, self.payload, self.id, self.job, self.attempt)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<Task {self.id or self.key} of {self.job or 'no job'}>"


class Batch(list[Task]):
    """The tasks of one reserve.

    Attributes:
        retry_after: seconds after which it makes sense to ask again; 0.0 when nothing is known.
    """

    __slots__ = ("retry_after",)

    def __init__(self, tasks: list[Task] | None = None, retry_after: float = 0.0) -> None:
        super().__init__(tasks or ())
        self.retry_after = retry_after


class Done(Record):
    """A handler's word that a task is done.

    Attributes:
        task: which one.
        result: what came of it; over HTTP it is posted, over NATS published where the source was
            told so.
    """

    __slots__ = ("task", "result")

    def __init__(self, task: Task, result: Any = None) -> None:
        self.task = task
        self.result = result


class Failed(Record):
    """A handler's word that a task has failed.

    Attributes:
        task: which one.
        reason: for people.
        retry: whether it makes sense to try it again. If not, it is settled as failed for good.
    """

    __slots__ = ("task", "reason", "retry")

    def __init__(self, task: Task, reason: str | BaseException, retry: bool = True) -> None:
        self.task = task
        self.reason = reason if isinstance(reason, str) else reason_of(reason)
        self.retry = retry


Outcome = Done | Failed


def reason_of(error: BaseException) -> str:
    """What is said of an error."""
    from .._lease import reason_of as text

    return text(error)
