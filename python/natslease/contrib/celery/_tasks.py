"""The tasks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cache
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from celery import shared_task

import natslease
from natslease.contrib._settling import Taken, acknowledge

if TYPE_CHECKING:
    from celery import Task

logger = logging.getLogger("natslease.celery")

# Tasks that run siblings of one process must not draw the same.
_random = SystemRandom()
_FIRST_RETRY = 1.0
_LAST_RETRY = 300.0
_JITTER = 0.5


@shared_task(
    bind=True, name="natslease.settle", ignore_result=True, max_retries=None, acks_late=True
)
def settle(
    self: Task[Any, Any], leases: Sequence[dict[str, str]], timeout: float = 5.0, tries: int = 50
) -> dict[str, int]:
    """Acknowledges leases whose results are saved; enqueue it when the transaction is committed
    (``settle.delay_on_commit`` in Django).

    What the server has confirmed, and what is gone with its queue, is done. What is unknown, or
    could not be sent, is tried again: after 1 s, then twice as long each time, to 5 minutes.

    Args:
        leases: each with "ack_subject", "stream", "consumer" and "alias", as ``LeaseRef.to_dict``
            makes them. They are not checked: let nobody else make such messages.
        timeout: seconds for all of them.
        tries: how often, at most. After that, and without acknowledgement, tasks are delivered
            again.

    Returns:
        How many ended how.
    """
    taken = [Taken(x["alias"], x["stream"], x["consumer"], x["ack_subject"]) for x in leases]
    results = acknowledge(taken, client_of, timeout)
    left = []
    wait = 0.0
    for lease, result in zip(leases, results, strict=True):
        if result.status == "unknown":
            left.append(lease)
            wait = max(wait, result.error.retry_after if result.error else 0.0)
        elif result.status in ("invalid", "rejected"):
            logger.error("%s is not acknowledged: %s", lease["ack_subject"], result.error)
    if left:
        done = self.request.retries
        if done + 1 < tries:
            wait = max(wait, min(_FIRST_RETRY * 2.0**done, _LAST_RETRY))
            raise self.retry(
                args=(left,),
                kwargs={"timeout": timeout, "tries": tries},
                countdown=wait * (1 + _JITTER * _random.random()),
            )
        logger.error("%d leases are not acknowledged after %d tries", len(left), tries)
    return dict(Counter(result.status for result in results))


@shared_task(name="natslease.settle_inbox", ignore_result=True)
def settle_inbox(limit: int = 1000, keep_days: float = 7.0) -> dict[str, int]:
    """For beat, every minute or so: acknowledges what is saved and not settled yet, and deletes
    rows of the inbox that were settled long ago. Needs ``natslease.contrib.django``.

    Args:
        limit: at most so many leases in a run.
        keep_days: how long settled rows stay.

    Returns:
        How many leases ended how, and how many rows were deleted ("pruned").
    """
    from natslease.contrib.django import inbox

    return {**inbox.settle_pending(limit), "pruned": inbox.prune(keep_days * 86_400)}


@shared_task(name="natslease.sweep", ignore_result=True)
def sweep(alias: str = "default", dry_run: bool = False) -> dict[str, Any]:
    """For beat, every hour or so: deletes queues that nobody wants any more, as
    ``NATSLEASE[alias]["SWEEP"]`` says. Needs ``natslease.contrib.django``.

    Args:
        dry_run: only finds and logs them.

    Returns:
        The names of "orphans" and of what was "deleted", what has "failed" and why, and whether
        there are "more".
    """
    from natslease.contrib import django

    report = django.sweep(alias, dry_run=dry_run)
    for name, error in report.failed.items():
        logger.error("the orphan queue %s is not deleted: %s", name, error)
    orphans = [orphan.name for orphan in report.orphans]
    if orphans:
        what = "found" if dry_run else "deleted"
        logger.warning("orphan queues %s: %s", what, ", ".join(report.deleted or orphans))
    return {
        "orphans": orphans,
        "deleted": report.deleted,
        "failed": {name: str(error) for name, error in report.failed.items()},
        "more": report.more,
    }


def client_of(alias: str) -> natslease.Client:
    """The client of an alias: of Django's settings, where it is set up, else of the environment."""
    if _in_django():
        from natslease.contrib.django import clients

        return clients[alias]
    return _from_environment()


def _in_django() -> bool:
    try:
        from django.apps import apps
    except ImportError:
        return False
    return apps.ready and apps.is_installed("natslease.contrib.django")


@cache
def _from_environment() -> natslease.Client:
    return natslease.Client.from_env()
