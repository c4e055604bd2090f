"""What Celery does: queues images, saves results, cleans up."""

from __future__ import annotations

import logging
import re
from typing import Any

from celery import shared_task
from django.db import transaction

import natslease
from natslease.contrib.antenna import FINAL, RESULTS_STAGE, JobQueue
from natslease.contrib.django import LeaseRef
from natslease.contrib.django.inbox import apply_once

from .models import Detection, Job

logger = logging.getLogger(__name__)

# A part of the images is published at a time, and what a part has not got in is published again.
CHUNK = 500


@shared_task(bind=True, max_retries=20)
def queue_images(self: Any, job_id: int, run: str) -> int:
    """Queues the images of a job that have no result yet, each once in this run."""
    job = Job.objects.get(pk=job_id)
    if job.run != run or job.status not in ("PENDING", "RETRY"):
        return 0
    done = job.detections.values("image_id")
    images = job.images.exclude(pk__in=done).order_by("pk").values_list("pk", "url")
    tasks = [
        {
            "id": f"{job_id}-{pk}",
            "image_id": str(pk),
            "image_url": url,
            "config": job.pipeline.config,
        }
        for pk, url in images
    ]
    queue = JobQueue(job_id, run=run)
    try:
        queue.ensure()
        queued = _publish(queue, tasks)
    except natslease.Unavailable as error:
        # Nothing is lost and nothing comes twice: the next attempt has the same run.
        raise self.retry(exc=error, countdown=max(error.retry_after, 1.0)) from error
    with transaction.atomic():
        job = Job.objects.select_for_update().get(pk=job_id)
        if job.run == run and job.status in ("PENDING", "RETRY"):
            job.status = "STARTED"
            job.set_stage("collect", "SUCCESS", 1.0)
            _count_results(job)
            job.save(update_fields=["status", "progress", "updated_at"])
    return queued


def _publish(queue: JobQueue, tasks: list[dict[str, Any]]) -> int:
    queued = 0
    for start in range(0, len(tasks), CHUNK):
        report = queue.publish(tasks[start : start + CHUNK])
        queued += len(report.accepted)
        if report.failed:
            raise report.failed[0].error
    return queued


@shared_task(acks_late=True)
def save_result(job_id: int, lease: dict[str, str], result: Any) -> str:
    """Saves a result once, however often it is delivered, and then acknowledges its task."""
    with apply_once(LeaseRef.from_dict(lease)) as first:
        if not first:
            return "duplicate"
        job = Job.objects.select_for_update().filter(pk=job_id).first()
        if job is None or job.status in FINAL:
            return "job is over"
        image_id = result.get("image_id") if isinstance(result, dict) else None
        is_number = re.fullmatch(r"[0-9]{1,18}", str(image_id)) is not None
        image = job.images.filter(pk=image_id).first() if is_number else None
        if image is None:
            logger.warning("a result of job %s is for no image of it: %.100r", job_id, image_id)
            return "no image"
        Detection.objects.create(job=job, image=image, body=result)
        _count_results(job)
        job.save(update_fields=["status", "progress", "updated_at"])
    if job.status in FINAL:
        clean_up.delay(job_id)
    return "saved"


def _count_results(job: Job) -> None:
    total = job.images.count()
    done = job.detections.values("image_id").distinct().count()
    share = done / total if total else 1.0
    for key in ("process", RESULTS_STAGE):
        job.set_stage(key, "SUCCESS" if share >= 1 else "STARTED", share, results=done, total=total)
    if share >= 1:
        job.status = "SUCCESS"
        job.progress["summary"].update(status="SUCCESS", progress=1.0)


@shared_task(bind=True, max_retries=10)
def clean_up(self: Any, job_id: int) -> bool:
    """Removes the queue of a job that is over; what this cannot do, reap_stale_jobs does later."""
    try:
        existed = JobQueue(job_id).delete()
    except (natslease.Unavailable, natslease.DeadlineExceeded) as error:
        raise self.retry(exc=error, countdown=max(error.retry_after, 5.0)) from error
    Job.objects.filter(pk=job_id, status="CANCELING").update(status="REVOKED")
    return existed
