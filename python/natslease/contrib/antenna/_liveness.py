"""Whether a processing service is there."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

ONLINE_SECONDS = 60.0
STALE_SECONDS = 3600.0
# What was seen a moment ago is not written again: polls are many.
SEEN_INTERVAL = 10.0


class Liveness:
    """The states of a processing service: seen in the last minute, in the last hour, or not.

    ``NATSLEASE_ANTENNA = {"ONLINE_SECONDS": ..., "STALE_SECONDS": ...}`` changes the limits.
    """

    ONLINE = "online"
    STALE = "stale"
    OFFLINE = "offline"

    @classmethod
    def of(cls, last_seen: datetime | None, now: datetime | None = None) -> str:
        """The state of what was last seen then; None: never."""
        if last_seen is None:
            return cls.OFFLINE
        age = ((now or timezone.now()) - last_seen).total_seconds()
        options = getattr(settings, "NATSLEASE_ANTENNA", {})
        if age <= options.get("ONLINE_SECONDS", ONLINE_SECONDS):
            return cls.ONLINE
        return cls.STALE if age <= options.get("STALE_SECONDS", STALE_SECONDS) else cls.OFFLINE


def note_seen(seen: object, field: str = "last_seen") -> int:
    """Notes that processing services, a queryset, were seen now; returns how many rows it wrote.

    One that was seen in the last 10 seconds is left as it is. Of a single one that is loaded, give
    the object itself: then that costs no query.
    """
    from django.db.models import Model, Q, QuerySet

    now = timezone.now()
    lately = now - timedelta(seconds=SEEN_INTERVAL)
    if isinstance(seen, Model):
        last: datetime | None = getattr(seen, field)
        if last is not None and last >= lately:
            return 0
        seen = type(seen)._default_manager.filter(pk=seen.pk)
    assert isinstance(seen, QuerySet)
    old = Q(**{f"{field}__isnull": True}) | Q(**{f"{field}__lt": lately})
    written: int = seen.filter(old).update(**{field: now})
    return written
