"""Workers that pull over HTTP, in the fleet's registry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from natslease.contrib.django import clients
from natslease.fleet import Fleet, Identity

from ._worker import WorkerInfo

Kind = Literal["ack", "extend", "nak", "release", "reserve"]

_MAX_DETAILS = 20
_MAX_DETAIL = 200

_fleets: dict[str, tuple[Any, Fleet]] = {}


def fleet_of(alias: str = "default") -> Fleet:
    """The fleet of a client."""
    client = clients[alias]
    made = _fleets.get(alias)
    # Tests change the settings, and with them the client.
    if made is None or made[0] is not client:
        made = _fleets[alias] = (client, Fleet(client))
    return made[1]


def identity_of(worker: WorkerInfo) -> Identity:
    """Who a worker is in the registry; one that does not say is known by its token."""
    return Identity(
        worker.service or f"token {worker.token or 'unknown'}",
        host=worker.hostname or worker.address or "unknown",
        slot=worker.slot,
    )


def details_of(worker: WorkerInfo) -> dict[str, str]:
    """What else a worker says of itself, as the registry keeps it: a few short texts."""
    known = ("service", "hostname", "pod", "slot", "epoch", "version")
    told = [(str(k), v) for k, v in worker.info.items() if k not in known]
    return {name[:_MAX_DETAIL]: str(value)[:_MAX_DETAIL] for name, value in told[:_MAX_DETAILS]}


def admit(worker: WorkerInfo, alias: str = "default", timeout: float | None = None) -> None:
    """Notes that a worker is there.

    Raises:
        natslease.Superseded: a newer worker has taken its place, or an operator has stopped it.
        natslease.Error: the registry cannot be asked.
    """
    fleet, identity = fleet_of(alias), identity_of(worker)
    if worker.is_registered:
        fleet.renew(identity, worker.epoch, timeout=timeout)
    else:
        fleet.seen(
            identity,
            version=worker.version,
            info=details_of(worker),
            address=worker.address,
            timeout=timeout,
        )


def record(kind: Kind, worker: WorkerInfo, leases: Iterable[Any], alias: str = "default") -> None:
    """Notes who took or settled what. Never waits."""
    listed = list(leases)
    if listed:
        fleet_of(alias).record(kind, identity_of(worker), listed, epoch=worker.epoch)
