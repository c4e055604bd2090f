"""What is asked of a fleet, whichever way it is asked."""

from __future__ import annotations

from weakref import WeakSet

from .. import _wire
from .._client import text, whole
from .._errors import ConfigError, from_description
from .._lease import LeaseBase
from .._native import exclusively
from .._operation import Operation, duration
from .._types import ConsumerInfo, StreamInfo
from ._types import (
    BatchEvent,
    Holder,
    Identity,
    Registration,
    SweepReport,
    TaskEvent,
    TaskHistory,
    WorkerInfo,
    read_place,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeVar

    from .._client import ClientBase
    from .._native import Native
    from .._operation import Call, Running
    from ._types import Kind

    T = TypeVar("T")
    W = TypeVar("W", bound="WorkerBase")

_ALL = 1_000_000


class FleetHandle:
    """A fleet as one copy of the extension knows it."""

    __slots__ = ("client", "native", "number")

    def __init__(self, native: Native, client: int) -> None:
        self.native = native
        self.client = client
        self.number = next(native.numbers)

    def __del__(self) -> None:
        if self.native.is_usable():
            self.native.forget_fleet(self.number)


class FleetBase:
    """The options of a fleet, and what is asked of it."""

    __slots__ = ("__weakref__", "_client", "_handle", "_options", "_workers", "heartbeat")

    def __init__(
        self,
        client: ClientBase,
        *,
        bucket: str = "natslease_workers",
        events: str = "natslease_events",
        heartbeat: float = 20.0,
        online_for: float = 60.0,
        stale_for: float = 3600.0,
        keep: float = 7 * 86400.0,
        max_bytes: int = 256 << 20,
        replicas: int = 1,
    ) -> None:
        """Checks the options. Nothing is sent.

        Args:
            client: the way to NATS.
            bucket: the key-value bucket with a record for each worker.
            events: the stream of what workers took and settled.
            heartbeat: seconds between two signs of life.
            online_for: seconds after its last sign of life for which a worker is online.
            stale_for: seconds for which it then is stale; after that it is offline.
            keep: seconds that records and events stay.
            max_bytes: how large the stream of events can be: then the oldest go.
            replicas: how many servers of a cluster keep both.

        Raises:
            ConfigError: an option is wrong; the text names all that are.
            TypeError: an option has the wrong type.
        """
        self._client = client
        self._options: dict[str, Any] = {
            "bucket": text("bucket", bucket),
            "events": text("events", events),
            "heartbeat": duration("heartbeat", heartbeat),
            "online_for": duration("online_for", online_for),
            "stale_for": duration("stale_for", stale_for),
            "keep": duration("keep", keep),
            "max_bytes": whole("max_bytes", max_bytes),
            "replicas": whole("replicas", replicas),
        }
        self.heartbeat: float = float(heartbeat)
        self._handle: FleetHandle | None = None
        self._workers: WeakSet[WorkerBase] = WeakSet()
        self._attach()  # checks the options

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._options['bucket']}, {self._client!r}>"

    def _attach(self) -> FleetHandle:
        client = self._client._attach()
        handle = self._handle
        if handle is not None and handle.native is client.native and handle.client == client.number:
            return handle
        with exclusively():
            handle = self._handle
            if handle is not None and (handle.native, handle.client) == (
                client.native,
                client.number,
            ):
                return handle
            handle = FleetHandle(client.native, client.number)
            answer = handle.native.open_fleet(
                handle.number, client.number, _wire.write_value(self._options)
            )
            if answer[0] == _wire.ERROR:
                raise _wire.read_error(answer)
            self._handle = handle
            return handle

    def _ask(
        self,
        ask: str,
        read: Callable[[Any], T],
        timeout: float | None,
        **request: Any,
    ) -> Operation[T]:
        fleet = self._attach()
        return Operation(
            fleet.native,
            fleet.native.ask_fleet,
            (fleet.number,),
            self._client._limit(timeout),
            lambda answer: read(_wire.read_value(answer)),
            _wire.write_value({"ask": ask, **request}),
        )

    # Each of the following describes one operation.

    def _ensure(self, timeout: float | None) -> Operation[None]:
        return self._ask("ensure", _nothing, timeout)

    def _register(
        self, worker: Identity, details: dict[str, Any], timeout: float | None
    ) -> Operation[Registration]:
        def read(found: Any) -> Registration:
            fenced = found["fenced"]
            return Registration(
                worker=worker, epoch=found["epoch"], fenced=fenced and _read_worker(fenced)
            )

        return self._ask("register", read, timeout, worker=_place(worker), details=details)

    def _renew(
        self, worker: Identity, epoch: int, details: dict[str, Any] | None, timeout: float | None
    ) -> Operation[None]:
        return self._ask(
            "renew",
            _nothing,
            timeout,
            worker=_place(worker),
            epoch=whole("epoch", epoch),
            details=details,
        )

    def _seen(
        self, worker: Identity, details: dict[str, Any], timeout: float | None
    ) -> Operation[None]:
        return self._ask("seen", _nothing, timeout, worker=_place(worker), details=details)

    def _leave(self, worker: Identity, epoch: int, timeout: float | None) -> Operation[None]:
        return self._ask(
            "leave", _nothing, timeout, worker=_place(worker), epoch=whole("epoch", epoch)
        )

    def _stop(self, worker: Identity, reason: str, timeout: float | None) -> Operation[bool]:
        return self._ask("stop", bool, timeout, worker=_place(worker), reason=reason)

    def _allow(self, worker: Identity, timeout: float | None) -> Operation[bool]:
        return self._ask("allow", bool, timeout, worker=_place(worker))

    def _list_workers(self, timeout: float | None) -> Operation[list[WorkerInfo]]:
        return self._ask("workers", lambda found: [_read_worker(w) for w in found], timeout)

    def _holders(self, stream: str, timeout: float | None) -> Operation[list[Holder]]:
        return self._ask(
            "holders",
            lambda found: [Holder(**_with_worker(h)) for h in found],
            timeout,
            stream=text("stream", stream),
        )

    def _task(
        self, stream: str, task: str | int, timeout: float | None
    ) -> Operation[TaskHistory | None]:
        which = (
            {"seq": whole("task", task)} if isinstance(task, int) else {"id": text("task", task)}
        )
        return self._ask(
            "task",
            lambda found: found and _read_history(found),
            timeout,
            stream=text("stream", stream),
            **which,
        )

    def _history(
        self, stream: str, limit: int, timeout: float | None
    ) -> Operation[list[TaskHistory]]:
        return self._ask(
            "history",
            lambda found: [_read_history(h) for h in found],
            timeout,
            stream=text("stream", stream),
            limit=whole("limit", limit),
        )

    def _events(
        self, stream: str | None, since: float, limit: int, timeout: float | None
    ) -> Operation[list[BatchEvent]]:
        return self._ask(
            "events",
            lambda found: [BatchEvent(**_with_worker(e)) for e in found],
            timeout,
            stream="" if stream is None else text("stream", stream),
            since=float(since),
            limit=whole("limit", limit),
        )

    def _flush(self, timeout: float | None) -> Operation[tuple[int, int]]:
        return self._ask("flush", lambda found: (found[0], found[1]), timeout)

    def _sweep(
        self,
        pattern: str,
        keep: Iterable[str] | Callable[[StreamInfo], bool],
        min_age: float,
        limit: int,
        dry_run: bool,
        timeout: float | None,
    ) -> Call[SweepReport]:
        request = {
            "pattern": text("pattern", pattern),
            "min_age": duration("min_age", min_age, zero=True),
        }
        if isinstance(keep, str):
            raise TypeError("keep: is one str: give a list of names, or a function")
        if callable(keep):
            # The function sees what would go; what it keeps is told by name.
            running: Running[SweepReport] = yield self._ask(
                "sweep", _read_sweep, timeout, **request, limit=_ALL, dry_run=True
            )
            found = yield running
            if isinstance(found, Exception):
                raise found
            names = [info.name for info in found.orphans if keep(info)]
        else:
            names = [text("keep", name) for name in keep]
        running = yield self._ask(
            "sweep",
            _read_sweep,
            timeout,
            **request,
            wanted=names,
            limit=whole("limit", limit),
            dry_run=bool(dry_run),
        )
        report: SweepReport | Exception = yield running
        if isinstance(report, Exception):
            raise report
        return report

    def _join(
        self, kind: type[W], worker: Identity, details: dict[str, Any], timeout: float | None
    ) -> Operation[W]:
        fleet = self._attach()
        native = fleet.native
        member = next(native.numbers)

        def read(answer: bytes) -> W:
            joined = kind(self, native, member, worker, _wire.read_number(answer))
            self._workers.add(joined)
            return joined

        return Operation(
            native,
            native.join_fleet,
            (fleet.number, member),
            self._client._limit(timeout),
            read,
            _wire.write_value({"worker": _place(worker), "details": details}),
            lambda _: _void(native.forget_member(member)),
        )

    def record(
        self,
        kind: Kind,
        worker: Identity,
        leases: Iterable[LeaseBase[Any] | str],
        *,
        epoch: int = 0,
        ids: Iterable[str] | None = None,
        reason: str = "",
    ) -> None:
        """Has it written down what a worker that this process speaks for has got or done.

        It does not wait, and does no I/O: what cannot be written in time is dropped.

        Args:
            kind: ``"reserve"``, ``"ack"``, ``"nak"``, ``"release"``, ``"extend"`` or ``"term"``.
            worker: its place.
            leases: leases, or ack subjects.
            epoch: the number of its registration, if it has one.
            ids: of a reserve, the tasks' ids where ack subjects are given.
            reason: of a nak or term.

        Raises:
            ConfigError: kind is none, or there are not as many ids as leases.
            InvalidLease: one is no ack subject.
        """
        subjects, names = [], []
        for lease in leases:
            if isinstance(lease, LeaseBase):
                subjects.append(lease.ack_subject)
                names.append(lease.id or "")
            else:
                subjects.append(text("leases", lease))
                names.append("")
        request: dict[str, Any] = {
            "kind": kind,
            "worker": _place(worker),
            "epoch": whole("epoch", epoch, zero=True),
            "subjects": subjects,
            "reason": reason,
        }
        if ids is not None:
            request["ids"] = [text("ids", name) for name in ids]
        elif kind == "reserve" and any(names):
            request["ids"] = names
        fleet = self._attach()
        answer = fleet.native.record_fleet(fleet.number, _wire.write_value(request))
        if answer[0] & ~_wire.LOGS == _wire.ERROR:
            raise _wire.read_error(answer)


class WorkerBase:
    """This process as a worker."""

    __slots__ = ("__weakref__", "_fleet", "_native", "_number", "epoch", "identity")

    def __init__(
        self, fleet: FleetBase, native: Native, number: int, identity: Identity, epoch: int
    ) -> None:
        self._fleet = fleet
        self._native = native
        self._number = number
        self.identity: Identity = identity
        self.epoch: int = epoch

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.identity}, epoch {self.epoch}>"

    def __del__(self) -> None:
        if self._number and self._native.is_usable():
            self._native.forget_member(self._number)

    def check(self) -> None:
        """Costs no request.

        Raises:
            Superseded: a newer worker has its place, or an operator has stopped it.
            ConfigError: it has left, or this process was forked from the worker.
        """
        answer = self._usable().member_superseded(self._number)
        if answer[0] & ~_wire.LOGS == _wire.ERROR:
            raise _wire.read_error(answer)

    @property
    def superseded(self) -> bool:
        """Whether a newer worker has its place, or an operator has stopped it."""
        return bool(self._usable().member_superseded(self._number)[0] & ~_wire.LOGS)

    def _usable(self) -> Native:
        if not self._native.is_usable():
            raise ConfigError(
                "the worker is the process that this one was forked from: join anew",
                outcome="rejected",
            )
        if not self._number:
            raise ConfigError("the worker has left: join anew", outcome="rejected")
        return self._native

    def _update(self, details: dict[str, Any], timeout: float | None) -> Operation[None]:
        native = self._usable()
        return Operation(
            native,
            native.update_member,
            (self._number,),
            self._fleet._client._limit(timeout),
            _wire.read_nothing,
            _wire.write_value({"details": details}),
        )

    def _end(self, timeout: float | None) -> Operation[None] | None:
        limit = self._fleet._client._limit(timeout)
        number, self._number = self._number, 0
        if not number or not self._native.is_usable():
            return None
        return Operation(
            self._native, self._native.leave_fleet, (number,), limit, _wire.read_nothing
        )


def place(worker: Identity | str, host: str | None, slot: str) -> Identity:
    """The identity that a call names one way or the other."""
    return worker if isinstance(worker, Identity) else Identity(worker, host, slot)


def describe(
    version: str = "", info: Mapping[str, str] | None = None, address: str = ""
) -> dict[str, Any]:
    """What a worker tells of itself, as the core takes it."""
    told = {}
    for name, value in (info or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"info: has {name!r:.50}: {value!r:.50}: names and values must be str")
        told[name] = value
    for name, value in (("version", version), ("address", address)):
        if not isinstance(value, str):
            raise TypeError(f"{name}: is {type(value).__name__}: it must be a str")
    return {"version": version, "info": told, "address": address}


def _place(worker: Identity) -> dict[str, str]:
    if not isinstance(worker, Identity):
        raise TypeError(f"worker: is {type(worker).__name__}: give an Identity")
    return {"service": worker.service, "host": worker.host, "slot": worker.slot}


def _nothing(_: Any) -> None:
    return None


def _void(_: Any) -> None:
    return None


def _with_worker(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "worker": read_place(fields["worker"])}


def _read_worker(fields: dict[str, Any]) -> WorkerInfo:
    rest = {name: value for name, value in fields.items() if name not in Identity.__slots__}
    rest["info"] = rest["info"] or {}
    rest["holding"] = rest["holding"] or {}
    return WorkerInfo(worker=read_place(fields), **rest)


def _read_history(fields: dict[str, Any]) -> TaskHistory:
    holder = fields["holder"]
    return TaskHistory(
        **{
            **fields,
            "holder": holder and read_place(holder),
            "events": [TaskEvent(**_with_worker(e)) for e in fields["events"]],
        }
    )


def _read_sweep(found: dict[str, Any]) -> SweepReport:
    return SweepReport(
        orphans=[
            StreamInfo(**{**fields, "consumers": [ConsumerInfo(**c) for c in fields["consumers"]]})
            for fields in found["orphans"]
        ],
        deleted=found["deleted"],
        failed={name: from_description(error) for name, error in found["failed"].items()},
        more=found["more"],
    )
