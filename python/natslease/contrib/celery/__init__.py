"""natslease in Celery: leases are settled after their results are saved, orphan queues swept.

The tasks are shared tasks: an app finds them when it imports this module, for example with
``app.autodiscover_tasks(["natslease.contrib.celery"], related_name=None)`` or ``imports``.
Worker processes that are forked need no signal handlers.
"""

from __future__ import annotations

from ._tasks import settle, settle_inbox, sweep

__all__ = ["settle", "settle_inbox", "sweep"]
