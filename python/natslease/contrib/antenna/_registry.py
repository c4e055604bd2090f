"""Views for workers themselves: registration, heartbeat, and who has what."""

from __future__ import annotations

from typing import Any

from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from natslease import fleet
from natslease.contrib.drf import QueueViewMixin, queue_action
from natslease.fleet import Identity

from . import _fleet, _names
from ._worker import WorkerInfo, worker_of


class WorkerViewSet(QueueViewMixin, viewsets.ViewSet):
    """``POST workers/`` registers a worker, and fences an older one of the same service, host and
    slot; ``POST workers/heartbeat/`` and ``workers/leave/`` are its further life. ``GET workers/``
    lists all.

    Route it beside the jobs: ``router.register("workers", WorkerViewSet, basename="worker")``.
    """

    @queue_action
    def create(self, request: Request) -> Response:
        """Registers a worker. From then on it sends ``epoch`` with its ``client_info``."""
        worker = _named(worker_of(request))
        registry = _fleet.fleet_of(self.queue_alias)
        with self.waiting():
            made = registry.register(
                _fleet.identity_of(worker),
                version=worker.version,
                info=_fleet.details_of(worker),
                address=worker.address,
            )
        return Response(
            {
                "epoch": made.epoch,
                "heartbeat": registry.heartbeat,
                "ack_wait": _names.setting("NATS_TASK_TTR"),
                "fenced": None if made.fenced is None else str(made.fenced.worker),
            },
            status=201,
        )

    @queue_action
    def list(self, request: Request) -> Response:
        """All workers of the last days, with what they have."""
        with self.waiting():
            workers = _fleet.fleet_of(self.queue_alias).workers()
        return Response({"workers": [_worker_fields(w) for w in workers]})

    @action(detail=False, methods=["post"])
    @queue_action
    def heartbeat(self, request: Request) -> Response:
        """A worker that has nothing to ask for is there."""
        worker = _named(worker_of(request))
        with self.waiting():
            _fleet.admit(worker, self.queue_alias)
        return Response({"status": "ok"})

    @action(detail=False, methods=["post"])
    @queue_action
    def leave(self, request: Request) -> Response:
        """A worker ends."""
        worker = _named(worker_of(request))
        if worker.is_registered:
            with self.waiting():
                _fleet.fleet_of(self.queue_alias).leave(_fleet.identity_of(worker), worker.epoch)
        return Response({"status": "ok"})


def _named(worker: WorkerInfo) -> WorkerInfo:
    missing = [name for name in ("service", "hostname") if not getattr(worker, name)]
    if missing:
        raise ValidationError({"client_info": f"has no {' and no '.join(missing)}"})
    return worker


def _worker_fields(worker: fleet.WorkerInfo) -> dict[str, Any]:
    return {
        **_place_fields(worker.worker),
        "epoch": worker.epoch,
        "status": worker.status,
        "last_seen": worker.last_seen,
        "version": worker.version,
        "holding": worker.holding,
        "done": worker.done,
        "failed": worker.failed,
    }


def _place_fields(identity: Identity) -> dict[str, str]:
    return {"service": identity.service, "hostname": identity.host, "slot": identity.slot}


def holders_of(stream: str, alias: str) -> list[dict[str, Any]]:
    """The workers of a queue's tasks."""
    return [
        {
            **_place_fields(holder.worker),
            "epoch": holder.epoch,
            "tasks": holder.holding,
            "done": holder.done,
            "failed": holder.failed,
            "last_at": holder.last_at,
        }
        for holder in _fleet.fleet_of(alias).holders(stream)
    ]


def history_of(stream: str, task: str, alias: str) -> dict[str, Any] | None:
    """Who had a task; None when nothing is known of it."""
    found = _fleet.fleet_of(alias).task(stream, int(task) if task.isdigit() else task)
    if found is None:
        return None
    return {
        "id": found.id,
        "seq": found.seq,
        "state": found.state,
        "holder": None if found.holder is None else str(found.holder),
        "events": [
            {
                "event": event.kind,
                "worker": str(event.worker),
                "epoch": event.epoch,
                "attempt": event.attempt,
                "at": event.at,
                "reason": event.reason,
            }
            for event in found.events
        ],
    }
