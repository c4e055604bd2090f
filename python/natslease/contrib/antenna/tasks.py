"""For Celery beat: ``natslease.contrib.antenna.reap_stale_jobs``."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from ._reaper import STALE_AFTER
from ._reaper import reap_stale_jobs as reap


@shared_task(name="natslease.contrib.antenna.reap_stale_jobs", ignore_result=True)
def reap_stale_jobs(
    stale_after: float = STALE_AFTER, limit: int = 100, dry_run: bool = False
) -> dict[str, Any]:
    """See ``natslease.contrib.antenna.reap_stale_jobs``."""
    return reap(stale_after=stale_after, limit=limit, dry_run=dry_run).to_dict()
