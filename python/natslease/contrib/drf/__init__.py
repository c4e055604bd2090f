"""natslease in Django REST framework: leases in serializers, queue views, URLs with and without
a trailing slash."""

from __future__ import annotations

from ._fields import LeaseField
from ._routers import OptionalSlashRouter, OptionalSlashSimpleRouter
from ._settle import SettleMixin
from ._views import QueueUnavailable, QueueViewMixin, queue_action

__all__ = [
    "LeaseField",
    "OptionalSlashRouter",
    "OptionalSlashSimpleRouter",
    "QueueUnavailable",
    "QueueViewMixin",
    "SettleMixin",
    "queue_action",
]
