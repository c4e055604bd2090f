"""The Celery task of before: its message has the reply subject as it is, and nothing else."""

from __future__ import annotations

import os
from typing import Any

from asgiref.sync import async_to_sync
from celery import shared_task

from main.models import Detection
from main.tasks import save_result
from natslease.contrib.antenna import JobQueue
from natslease.contrib.antenna.nats_queue import TaskQueueManager
from natslease.contrib.django import LeaseRef


@shared_task(name="rollingsite.process_result", acks_late=True)
def process_result(job_id: int, result: dict[str, Any], reply_subject: str) -> None:
    """As docs/howto/antenna.md has it before its second step, and after."""
    if os.environ["ROLLING_CODE"] == "before":
        Detection.objects.create(job_id=job_id, image_id=result["image_id"], body=result)
        async_to_sync(_acknowledge)(reply_subject)
    else:
        ref = LeaseRef.parse(reply_subject, JobQueue(job_id).queue)
        save_result(job_id, ref.to_dict(), result)


async def _acknowledge(reply_subject: str) -> bool:
    async with TaskQueueManager() as manager:
        acknowledged: bool = await manager.acknowledge_task(reply_subject)
    return acknowledged
