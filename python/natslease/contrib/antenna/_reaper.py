"""Ends jobs that nobody works on any more, and removes their queues."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Model, QuerySet
from django.utils import timezone
from django.utils.module_loading import import_string

import natslease

from . import _names
from ._jobqueue import JobQueue

logger = logging.getLogger("natslease.contrib.antenna")

STALE_AFTER = 3600.0


@dataclass
class ReapReport:
    """What was done, or would be done.

    Attributes:
        ended: jobs that were ended.
        kept: jobs that looked stale, with why they were left.
        queues: streams that were removed: of jobs that are over, or that do not exist.
        unfinished: what could not be found out or done, with the error; the next run tries again.
        truncated: whether there was more than this run was allowed to do.
        dry_run: whether nothing was changed.
    """

    ended: list[int] = field(default_factory=list)
    kept: dict[int, str] = field(default_factory=dict)
    queues: list[str] = field(default_factory=list)
    unfinished: dict[str, str] = field(default_factory=dict)
    truncated: bool = False
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "kept": {str(job): why for job, why in self.kept.items()}}


class ReapPolicy:
    """What a site says of its jobs; the default is for jobs as Antenna's.

    Name your own in ``NATSLEASE_ANTENNA = {"REAP_POLICY": "site.jobs.Policy"}``.
    """

    def jobs(self) -> QuerySet[Any]:
        """All jobs: the model that ``NATSLEASE_ANTENNA["JOB_MODEL"]`` names."""
        from django.apps import apps

        options = getattr(settings, "NATSLEASE_ANTENNA", {})
        model: type[Model] = apps.get_model(options.get("JOB_MODEL", "jobs.Job"))
        jobs: QuerySet[Any] = model._default_manager.all()
        return jobs

    def last_contact(self, job: Any) -> datetime | None:
        """When a worker last asked for the job, or sent a result."""
        contact: datetime | None = getattr(job, "last_contact", None)
        return contact

    def changed(self, job: Any) -> datetime:
        """When the job itself last changed."""
        when: datetime = job.updated_at
        return when

    def end(self, job: Any, info: natslease.QueueInfo | None) -> None:
        """Ends a stale job, which is locked: a job that was being cancelled is REVOKED; one whose
        queue is drained and whose results are in is a SUCCESS; any other is a FAILURE."""
        if job.status == "CANCELING":
            job.status = "REVOKED"
        elif (info is None or _open_tasks(info) == 0) and _results_are_in(job):
            job.status = "SUCCESS"
        else:
            job.status = "FAILURE"
        job.save(update_fields=["status", "updated_at"])


def _open_tasks(info: natslease.QueueInfo) -> int:
    return info.num_pending + info.num_ack_pending


def _results_are_in(job: Any) -> bool:
    progress = job.progress if isinstance(job.progress, dict) else {}
    stages = progress.get("stages") or ()
    return any(
        stage.get("key") == _names.RESULTS_STAGE
        and (stage.get("status") in _names.FINAL or float(stage.get("progress") or 0) >= 1)
        for stage in stages
    )


def reap_stale_jobs(
    *,
    stale_after: float = STALE_AFTER,
    limit: int = 100,
    timeout: float = 60.0,
    dry_run: bool = False,
    policy: ReapPolicy | None = None,
    alias: str = "default",
) -> ReapReport:
    """Ends jobs that are stale, and removes queues that belong to no job that runs.

    A job is stale when its status says that it runs (PENDING, STARTED, RETRY, CANCELING, UNKNOWN),
    it has not changed for ``stale_after`` seconds, no worker has asked for it in that time, and its
    queue gives nothing out: no task is leased. It may be run as often as one likes, by several
    processes: each job is looked at again under its row's lock before it is ended.

    Args:
        stale_after: seconds.
        limit: at most so many jobs, and as many queues, in one run; the oldest first.
        timeout: seconds after which no further job is begun.
        dry_run: only tells what would be done.
        policy: what the site says; left out, the one that the settings name.
        alias: of the client.

    Returns:
        What was done. An outage of NATS ends nothing: what cannot be asked is kept.
    """
    policy = policy or _policy()
    report = ReapReport(dry_run=dry_run)
    until = time.monotonic() + timeout
    before = timezone.now() - timedelta(seconds=stale_after)
    suspects = policy.jobs().filter(status__in=_names.RUNNING, updated_at__lt=before)
    ids = list(suspects.order_by("updated_at").values_list("pk", flat=True)[: limit + 1])
    report.truncated = len(ids) > limit
    for job_id in ids[:limit]:
        if time.monotonic() > until:
            report.truncated = True
            break
        reap = partial(_reap, job_id, before, policy, report, alias)
        if not _attempt(report, f"job {job_id}", reap):
            break
    _sweep(policy, report, limit, until, alias)
    if report.ended or report.queues or report.unfinished:
        logger.info("stale jobs: %s", report)
    return report


def _attempt(report: ReapReport, what: str, do: Callable[[], None]) -> bool:
    """Does something that needs NATS; False when NATS is away, so that nothing more is tried."""
    try:
        do()
    except (natslease.Unavailable, natslease.DeadlineExceeded) as error:
        report.unfinished[what] = f"{error.code}: {error}"
        return False
    except natslease.Error as error:
        report.unfinished[what] = f"{error.code}: {error}"
    return True


def _reap(
    job_id: int, before: datetime, policy: ReapPolicy, report: ReapReport, alias: str
) -> None:
    queue = JobQueue(job_id, alias=alias)
    info = queue.info()  # outside the transaction: it may take its whole timeout
    if info is not None and info.num_ack_pending:
        report.kept[job_id] = f"{info.num_ack_pending} tasks are leased"
        return
    with transaction.atomic():
        job = policy.jobs().select_for_update(of=("self",)).filter(pk=job_id).first()
        if job is None or job.status not in _names.RUNNING or policy.changed(job) >= before:
            return
        contact = policy.last_contact(job)
        if contact is not None and contact >= before:
            report.kept[job_id] = "a worker has asked for it"
            return
        if not report.dry_run:
            policy.end(job, info)
    report.ended.append(job_id)
    if info is not None:
        _remove(queue, report)


def _remove(queue: JobQueue, report: ReapReport) -> None:
    if report.dry_run or queue.delete():
        report.queues.append(queue.queue.stream)


def _sweep(policy: ReapPolicy, report: ReapReport, limit: int, until: float, alias: str) -> None:
    """Removes the queues of jobs that are over or do not exist."""
    streams: list[Any] = []
    if not _attempt(report, "streams", lambda: streams.extend(_streams(alias))):
        return
    by_job = {job: s for s in streams if (job := _names.job_of_stream(s.name)) is not None}
    needed: set[int] = set()
    for some in _chunks(sorted(by_job)):
        jobs = policy.jobs().filter(pk__in=some).exclude(status__in=_names.FINAL)
        needed.update(jobs.values_list("pk", flat=True))
    done = 0
    for job_id in sorted(by_job):
        queue = JobQueue(job_id, alias=alias)
        if job_id in needed or queue.queue.stream in report.queues:
            continue
        # A job that is being created has a queue before others can see its row.
        if time.time() - by_job[job_id].created < _FRESH_SECONDS:
            continue
        if done == limit or time.monotonic() > until:
            report.truncated = True
            return
        done += 1
        if not _attempt(report, queue.queue.stream, partial(_remove, queue, report)):
            return


_FRESH_SECONDS = 600.0
_CHUNK = 500


def _chunks(ids: list[int]) -> Iterable[list[int]]:
    return (ids[i : i + _CHUNK] for i in range(0, len(ids), _CHUNK))


def _streams(alias: str) -> Iterable[Any]:
    from natslease.contrib.django import clients

    return clients[alias].streams(timeout=_names.JETSTREAM_TIMEOUT)


def _policy() -> ReapPolicy:
    named = getattr(settings, "NATSLEASE_ANTENNA", {}).get("REAP_POLICY", ReapPolicy)
    policy: ReapPolicy = (import_string(named) if isinstance(named, str) else named)()
    return policy
