"""The fleet, awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._asyncio import run, run_call
from ._base import FleetBase, WorkerBase, describe, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from .._types import StreamInfo
    from ._types import (
        BatchEvent,
        Holder,
        Identity,
        Registration,
        SweepReport,
        TaskHistory,
        WorkerInfo,
    )


class AsyncWorker(WorkerBase):
    """This process as a worker; as ``Worker``, awaited."""

    __slots__ = ()

    async def update(
        self,
        *,
        version: str = "",
        info: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """As ``Worker.update``."""
        await run(self._update(describe(version, info), timeout))

    async def leave(self, *, timeout: float | None = None) -> None:
        """As ``Worker.leave``."""
        operation = self._end(timeout)
        if operation is not None:
            await run(operation)

    async def __aenter__(self) -> AsyncWorker:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.leave()


class AsyncFleet(FleetBase):
    """The workers of one NATS system; as ``Fleet``, awaited."""

    __slots__ = ()

    async def ensure(self, *, timeout: float | None = None) -> None:
        """As ``Fleet.ensure``."""
        await run(self._ensure(timeout))

    async def join(
        self,
        worker: Identity | str,
        *,
        host: str | None = None,
        slot: str = "0",
        version: str = "",
        info: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> AsyncWorker:
        """As ``Fleet.join``."""
        return await run(
            self._join(AsyncWorker, place(worker, host, slot), describe(version, info), timeout)
        )

    async def register(
        self,
        worker: Identity,
        *,
        version: str = "",
        info: Mapping[str, str] | None = None,
        address: str = "",
        timeout: float | None = None,
    ) -> Registration:
        """As ``Fleet.register``."""
        return await run(self._register(worker, describe(version, info, address), timeout))

    async def renew(
        self,
        worker: Identity,
        epoch: int,
        *,
        version: str = "",
        info: Mapping[str, str] | None = None,
        address: str = "",
        timeout: float | None = None,
    ) -> None:
        """As ``Fleet.renew``."""
        told = describe(version, info, address) if version or info or address else None
        await run(self._renew(worker, epoch, told, timeout))

    async def seen(
        self,
        worker: Identity,
        *,
        version: str = "",
        info: Mapping[str, str] | None = None,
        address: str = "",
        timeout: float | None = None,
    ) -> None:
        """As ``Fleet.seen``."""
        await run(self._seen(worker, describe(version, info, address), timeout))

    async def leave(self, worker: Identity, epoch: int, *, timeout: float | None = None) -> None:
        """As ``Fleet.leave``."""
        await run(self._leave(worker, epoch, timeout))

    async def stop(
        self, worker: Identity, reason: str = "", *, timeout: float | None = None
    ) -> bool:
        """As ``Fleet.stop``."""
        return await run(self._stop(worker, reason, timeout))

    async def allow(self, worker: Identity, *, timeout: float | None = None) -> bool:
        """As ``Fleet.allow``."""
        return await run(self._allow(worker, timeout))

    async def workers(self, *, timeout: float | None = None) -> list[WorkerInfo]:
        """As ``Fleet.workers``."""
        return await run(self._list_workers(timeout))

    async def holders(self, stream: str, *, timeout: float | None = None) -> list[Holder]:
        """As ``Fleet.holders``."""
        return await run(self._holders(stream, timeout))

    async def task(
        self, stream: str, task: str | int, *, timeout: float | None = None
    ) -> TaskHistory | None:
        """As ``Fleet.task``."""
        return await run(self._task(stream, task, timeout))

    async def history(
        self, stream: str, *, limit: int = 1000, timeout: float | None = None
    ) -> list[TaskHistory]:
        """As ``Fleet.history``."""
        return await run(self._history(stream, limit, timeout))

    async def events(
        self,
        stream: str | None = None,
        *,
        since: float = 0.0,
        limit: int = 1000,
        timeout: float | None = None,
    ) -> list[BatchEvent]:
        """As ``Fleet.events``."""
        return await run(self._events(stream, since, limit, timeout))

    async def flush(self, *, timeout: float | None = None) -> tuple[int, int]:
        """As ``Fleet.flush``."""
        return await run(self._flush(timeout))

    async def sweep(
        self,
        pattern: str,
        *,
        keep: Iterable[str] | Callable[[StreamInfo], bool] = (),
        min_age: float = 3600.0,
        limit: int = 100,
        dry_run: bool = True,
        timeout: float | None = None,
    ) -> SweepReport:
        """As ``Fleet.sweep``."""
        return await run_call(self._sweep(pattern, keep, min_age, limit, dry_run, timeout))
