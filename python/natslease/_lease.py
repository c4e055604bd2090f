"""Leases: one delivery of one task to one taker."""

from __future__ import annotations

from time import monotonic_ns

from . import _wire
from ._errors import Error
from ._operation import run
from ._typing import Generic, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from ._queue import Queue, QueueBase  # noqa: F401 (in strings)
    from ._types import SettleResult

L = TypeVar("L", bound="LeaseBase[Any]")
Q = TypeVar("Q", bound="QueueBase[Any]")

_NS = 1_000_000_000


class LeaseBase(Generic[Q]):
    """What a lease knows, whichever way it is settled."""

    __slots__ = ("_block", "_index", "_queue")

    def __init__(self, block: _wire.LeaseBlock, index: int, queue: Q) -> None:
        self._block = block
        self._index = index
        self._queue = queue

    @property
    def queue(self) -> Q:
        """Where the lease is from."""
        return self._queue

    @property
    def data(self) -> bytes:
        """The payload."""
        return self._block.blob(_wire.DATA, self._index)

    def json(self) -> Any:
        """The payload, parsed as JSON.

        Raises:
            ValueError: it is not JSON.
        """
        from json import loads

        return loads(self.data)

    @property
    def id(self) -> str:
        """The task's id, which ``publish`` makes where none is given; "" when there is none."""
        return self._block.blob(_wire.ID, self._index).decode("utf-8", "replace")

    @property
    def headers(self) -> dict[str, str]:
        """The message's headers; the first value of a name that occurs more than once."""
        return dict(reversed(self._block.headers(self._index)))

    def header_values(self, name: str) -> list[str]:
        """All values of a header, in their order."""
        return [value for key, value in self._block.headers(self._index) if key == name]

    @property
    def subject(self) -> str:
        """The subject that the task was published to."""
        return self._block.blob(_wire.SUBJECT, self._index).decode("utf-8", "replace")

    @property
    def ack_subject(self) -> str:
        """What the lease is settled by. Another process can do so: ``queue.ack([ack_subject])``."""
        return self._block.blob(_wire.ACK_SUBJECT, self._index).decode("utf-8", "replace")

    @property
    def attempt(self) -> int:
        """How often the task was given out, this time included: 1 for the first delivery."""
        return self._block.number(_wire.ATTEMPT, self._index)

    @property
    def seq(self) -> int:
        """The task's sequence in the stream."""
        return self._block.number(_wire.SEQ, self._index)

    @property
    def pending(self) -> int:
        """How many tasks were behind this one when it was given out."""
        return self._block.number(_wire.BACKLOG, self._index)

    @property
    def published_at(self) -> float:
        """When the task was published, in seconds since 1970 by the server's clock."""
        return self._block.number(_wire.PUBLISHED, self._index) / _NS

    @property
    def expires_at(self) -> float:
        """When the lease runs out, in seconds since 1970, as ``time.time()``.

        From the consumer's actual ``ack_wait``, and counted on this machine's monotonic clock.
        """
        return (self._expires() + self._block.clock) / _NS

    @property
    def time_left(self) -> float:
        """Seconds until the lease runs out; negative afterwards."""
        return (self._expires() - monotonic_ns()) / _NS

    def _expires(self) -> int:
        block = self._block
        if block.kept[self._index]:
            self._queue._look_up([self])
        return block.expires(self._index)

    @property
    def settled(self) -> bool:
        """Whether this object, or a call with it in its list, has settled the lease."""
        return bool(self._block.done[self._index])

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a lease is not pickled: send its data and ack_subject, and settle by that")

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.id or self.seq} of {self._queue.stream}: attempt "
            f"{self.attempt}, {'settled' if self.settled else f'{self.time_left:.1f} s left'}>"
        )


class LeaseBatch(list[L]):
    """The leases of one reserve: a list.

    Attributes:
        retry_after: seconds after which it makes sense to ask again; 0.0 unless the list is empty.
    """

    __slots__ = ("retry_after",)

    retry_after: float


class AnyBatch(LeaseBatch[L]):
    """The leases of one ``reserve_any``: a list, of which each lease knows its ``queue``.

    Attributes:
        missing: queues whose stream or consumer does not exist.
        errors: what else is wrong, by queue.
    """

    __slots__ = ("errors", "missing")

    missing: list[QueueBase[L]]
    errors: dict[QueueBase[L], Error]


class Lease(LeaseBase["Queue"]):
    """One delivery of one task to one taker. Until ``expires_at`` the task is nobody else's.

    As a context manager it is acknowledged at the end of the block. When the block raises, it is
    NAKed: it failed, and is offered again; when the block is interrupted (``KeyboardInterrupt``,
        ``SystemExit``)
    it is released, which does not count as a failure and is not waited for. A lease that is settled
    in the block stays as it is.
    """

    __slots__ = ()

    def ack(self, *, timeout: float | None = None) -> SettleResult:
        """Settles the lease as done, and returns once the server has said so.

        Past ``expires_at`` it is still sent, and the result is marked ``late``.

        Args:
            timeout: seconds; left out, the client's.

        Raises:
            DeadlineExceeded: no word from the server: it may be acknowledged.
            LeaseGone: the stream or the consumer no longer exists.
            Unavailable: the connection failed; ``outcome`` tells whether it may be acknowledged.
        """
        return run(self._queue._settle_one("ack", self, timeout))

    def nak(
        self, *, delay: float = 0.0, reason: str = "", timeout: float | None = None
    ) -> SettleResult:
        """Gives the task back because it failed. Uses up an attempt of ``max_deliver``.

        Args:
            delay: seconds until it is offered again.
            reason: what the dead letter says, should this have been the last attempt.
            timeout: seconds; left out, the client's.

        Raises:
            LeaseExpired: the task may be somebody else's now; nothing was sent.
            Error: as ``ack``.
        """
        return run(self._queue._settle_one("nak", self, timeout, delay=delay, reason=reason))

    def release(self, *, timeout: float | None = None) -> SettleResult:
        """Gives the task back because it was not started. Never wears it out.

        Raises:
            LeaseExpired: the task may be somebody else's now; nothing was sent.
            Error: as ``ack``.
        """
        return run(self._queue._settle_one("release", self, timeout))

    def extend(self, *, timeout: float | None = None) -> SettleResult:
        """Starts the lease's time anew, and moves ``expires_at``.

        Raises:
            LeaseExpired: the task may be somebody else's now; nothing was sent.
            Error: as ``ack``.
        """
        return run(self._queue._settle_one("extend", self, timeout))

    def term(self, reason: str = "", *, timeout: float | None = None) -> SettleResult:
        """Settles the lease as failed for good: the task is not offered again.

        Args:
            reason: goes into the server's advisory.
            timeout: seconds; left out, the client's.

        Raises:
            LeaseExpired: the task may be somebody else's now; nothing was sent.
            Error: as ``ack``.
        """
        return run(self._queue._settle_one("term", self, timeout, reason=reason))

    def keep(self, *, max_hold: float = 3600.0, heartbeat: float | None = None) -> None:
        """Has the lease extended until it is settled, even while this thread holds the
        interpreter's lock.

        Args:
            max_hold: seconds after which that ends, whatever happens.
            heartbeat: seconds without ``beat`` after which it ends, too; left out: never.
        """
        self._queue.keep([self], max_hold=max_hold, heartbeat=heartbeat)

    def beat(self) -> None:
        """Says that whoever has the kept lease is at work. Costs no request."""
        self._queue.beat([self])

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.settled:
            return
        if error is None:
            self.ack()
        elif isinstance(error, Exception):
            # The block's own error is the one to be seen.
            try:
                run(self._queue._settle_one("nak", self, None, reason=reason_of(error)))
            except Error as failure:
                note(error, failure)
        else:
            self._queue._detach("release", [self])  # whoever was interrupted does not wait


def reason_of(error: BaseException) -> str:
    """What a dead letter says of the error that a block has raised."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def note(error: BaseException, failure: Error) -> None:
    """Adds to a block's error that its lease could not be given back (from Python 3.11)."""
    if hasattr(error, "add_note"):
        error.add_note(f"the lease could not be given back: {failure}")
