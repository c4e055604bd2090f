"""Which workers there are, which of them may go on, and who has which task.

>>> fleet = Fleet(client)                                        # no I/O
>>> with fleet.join("moths", slot="0") as worker:                # a newer one fences the older
...     for lease in queue.consume(16):                          # Superseded, once it is fenced
...         ...
>>> print(fleet.task("job_1365", "17"))                          # who has it, and since when
"""

from __future__ import annotations

from .._operation import run, run_call
from ._base import FleetBase, WorkerBase, describe, place
from ._types import (
    BatchEvent,
    Holder,
    Identity,
    Registration,
    SweepReport,
    TaskEvent,
    TaskHistory,
    WorkerInfo,
    default_host,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any

    from .._types import StreamInfo
    from ._asyncio import AsyncFleet, AsyncWorker

__all__ = [
    "AsyncFleet",
    "AsyncWorker",
    "BatchEvent",
    "Fleet",
    "Holder",
    "Identity",
    "Registration",
    "SweepReport",
    "TaskEvent",
    "TaskHistory",
    "Worker",
    "WorkerInfo",
    "default_host",
]


class Worker(WorkerBase):
    """This process as a worker; made by ``Fleet.join``.

    Until it leaves, it is renewed by itself, what the fleet's client reserves and settles is
    recorded, and that client's reserves raise ``Superseded`` once a newer worker has its place. As
    a context manager it leaves at the end of the block.
    """

    __slots__ = ()

    def update(
        self,
        *,
        version: str = "",
        info: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Changes what it tells of itself."""
        run(self._update(describe(version, info), timeout))

    def leave(self, *, timeout: float | None = None) -> None:
        """Ends it: the worker is offline from then on. Does nothing the second time.

        Raises:
            Unavailable, DeadlineExceeded: it has ended, but that could not be written down.
        """
        operation = self._end(timeout)
        if operation is not None:
            run(operation)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()


class Fleet(FleetBase):
    """The workers of one NATS system.

    Safe for use by any number of threads, and in forked children. Every method takes ``timeout``,
    in seconds, and returns by it; left out it is the client's.
    """

    __slots__ = ()

    def ensure(self, *, timeout: float | None = None) -> None:
        """Creates the bucket and the stream of events if they are missing, as registering does.

        Raises:
            PermissionDenied: the server's permissions forbid it.
            Unavailable, DeadlineExceeded: it was not done.
        """
        run(self._ensure(timeout))

    def join(
        self,
        worker: Identity | str,
        *,
        host: str | None = None,
        slot: str = "0",
        version: str = "",
        info: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Worker:
        """Makes this process a worker that takes tasks with the fleet's client.

        An older worker in the same place is fenced: its next reserve raises ``Superseded``. A
        forked child is not the worker: it joins anew.

        Args:
            worker: its identity, or the name of its service.
            host: see ``Identity``.
            slot: see ``Identity``.
            version: shown in the list of workers, as is info.

        Raises:
            Superseded: three workers were fenced there within a minute; the text names who has the
                place, and ``retry_after`` when it can be had.
            ConfigError: the identity is none.
            Unavailable, DeadlineExceeded, PermissionDenied: it did not join.
        """
        return run(self._join(Worker, place(worker, host, slot), describe(version, info), timeout))

    def register(
        self,
        worker: Identity,
        *,
        version: str = "",
        info: Mapping[str, str] | None = None,
        address: str = "",
        timeout: float | None = None,
    ) -> Registration:
        """Registers a worker that this process speaks for, and fences the one in its place.

        Raises:
            Superseded: as ``join``.
            Unavailable, DeadlineExceeded: it may have happened.
        """
        return run(self._register(worker, describe(version, info, address), timeout))

    def renew(
        self,
        worker: Identity,
        epoch: int,
        *,
        version: str = "",
        info: Mapping[str, str] | None = None,
        address: str = "",
        timeout: float | None = None,
    ) -> None:
        """A sign of life of a registered worker that this process speaks for.

        It costs one request, and a second one when this process has not renewed the worker for half
        a heartbeat, or is told something of it.

        Raises:
            Superseded: a newer worker has the place, or an operator has stopped it.
            Unavailable, DeadlineExceeded: nothing is known.
        """
        told = describe(version, info, address) if version or info or address else None
        run(self._renew(worker, epoch, told, timeout))

    def seen(
        self,
        worker: Identity,
        *,
        version: str = "",
        info: Mapping[str, str] | None = None,
        address: str = "",
        timeout: float | None = None,
    ) -> None:
        """A sign of life of a worker that does not register: it is listed, and never fenced.

        Raises:
            Superseded: an operator has stopped it.
            Unavailable, DeadlineExceeded: nothing is known.
        """
        run(self._seen(worker, describe(version, info, address), timeout))

    def leave(self, worker: Identity, epoch: int, *, timeout: float | None = None) -> None:
        """Says that a registered worker has ended. Does nothing when a newer one has its place."""
        run(self._leave(worker, epoch, timeout))

    def stop(self, worker: Identity, reason: str = "", *, timeout: float | None = None) -> bool:
        """Has a worker's next call raise ``Superseded``, until one registers there anew.

        Returns:
            False when there is no such worker.
        """
        return run(self._stop(worker, reason, timeout))

    def allow(self, worker: Identity, *, timeout: float | None = None) -> bool:
        """Takes ``stop`` back.

        Returns:
            False when there is no such worker.
        """
        return run(self._allow(worker, timeout))

    def workers(self, *, timeout: float | None = None) -> list[WorkerInfo]:
        """The workers of the last seven days (see ``keep``), and what they do.

        Raises:
            Unavailable, DeadlineExceeded: nothing is known.
        """
        return run(self._list_workers(timeout))

    def holders(self, stream: str, *, timeout: float | None = None) -> list[Holder]:
        """Which workers have, or had, tasks of a queue, the latest first."""
        return run(self._holders(stream, timeout))

    def task(
        self, stream: str, task: str | int, *, timeout: float | None = None
    ) -> TaskHistory | None:
        """What happened to one task, and who has it; None when nothing is known of it.

        Args:
            stream: the queue's.
            task: its id, or its sequence in the stream as an int.
        """
        return run(self._task(stream, task, timeout))

    def history(
        self, stream: str, *, limit: int = 1000, timeout: float | None = None
    ) -> list[TaskHistory]:
        """What happened to the tasks of a queue, one by one, by sequence; the newest ``limit``."""
        return run(self._history(stream, limit, timeout))

    def events(
        self,
        stream: str | None = None,
        *,
        since: float = 0.0,
        limit: int = 1000,
        timeout: float | None = None,
    ) -> list[BatchEvent]:
        """What was recorded, the oldest first.

        Args:
            stream: of one queue; left out, of all.
            since: from this moment on, in seconds since 1970.
            limit: at most so many.
        """
        return run(self._events(stream, since, limit, timeout))

    def flush(self, *, timeout: float | None = None) -> tuple[int, int]:
        """Has what is recorded written now, and waits for that.

        Returns:
            How many messages this process has written, and how many events or messages it has
            dropped.
        """
        return run(self._flush(timeout))

    def sweep(
        self,
        pattern: str,
        *,
        keep: Iterable[str] | Callable[[StreamInfo], bool] = (),
        min_age: float = 3600.0,
        limit: int = 100,
        dry_run: bool = True,
        timeout: float | None = None,
    ) -> SweepReport:
        """Finds, and deletes, queues that nobody wants any more.

        Args:
            pattern: what their streams' names look like, as for ``Client.streams``.
            keep: the names of those that are wanted, or a function that tells.
            min_age: seconds since the stream was made, and since its newest message, before which
                it is nobody's orphan.
            limit: deletes at most so many.
            dry_run: only lists them.
            timeout: seconds; left out, the client's.

        Raises:
            ConfigError: an argument is wrong.
            Unavailable, DeadlineExceeded: some may have been deleted.
        """
        return run_call(self._sweep(pattern, keep, min_age, limit, dry_run, timeout))


def __getattr__(name: str) -> Any:
    # Only who uses it imports asyncio.
    if name in ("AsyncFleet", "AsyncWorker"):
        from . import _asyncio

        return getattr(_asyncio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
