"""Everything that knows Antenna: its states, stages, names and HTTP.

The application gets ``JobQueueMixin`` for its viewset of jobs, ``JobQueue`` for queueing images,
``IncompleteJobFilter`` and ``reap_stale_jobs``; as a first step,
``natslease.contrib.antenna.nats_queue`` stands in for its own module of that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._jobqueue import JobQueue
from ._liveness import Liveness, note_seen
from ._names import ACTIVE, ASYNC_API, FINAL, INTERNAL, RESULTS_STAGE, RUNNING, SYNC_API
from ._reaper import ReapPolicy, ReapReport, reap_stale_jobs

if TYPE_CHECKING:
    from ._registry import WorkerViewSet
    from ._worker import WorkerInfo, worker_of
    from .filters import IncompleteJobFilter, incomplete
    from .views import JobQueueMixin, ResultItemSerializer

__all__ = [
    "ACTIVE",
    "ASYNC_API",
    "FINAL",
    "INTERNAL",
    "RESULTS_STAGE",
    "RUNNING",
    "SYNC_API",
    "IncompleteJobFilter",
    "JobQueue",
    "JobQueueMixin",
    "Liveness",
    "ReapPolicy",
    "ReapReport",
    "ResultItemSerializer",
    "WorkerInfo",
    "WorkerViewSet",
    "incomplete",
    "note_seen",
    "reap_stale_jobs",
    "worker_of",
]

# Who only queues images needs no REST framework; and models import this package before the apps
# that REST framework wants are ready.
_LATER = {
    "IncompleteJobFilter": "filters",
    "incomplete": "filters",
    "JobQueueMixin": "views",
    "ResultItemSerializer": "views",
    "WorkerInfo": "_worker",
    "WorkerViewSet": "_registry",
    "worker_of": "_worker",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
