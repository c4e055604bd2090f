"""Tasks as they were served in February 2026: a connection of nats-py for each request, inside
``async_to_sync``, with the defaults of that day. Written for the comparison only.
"""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any

import nats
from asgiref.sync import async_to_sync
from django.conf import settings
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter

from main.views import JobViewSet, PipelineViewSet, ProjectViewSet

WAIT = 0.5


class TaskQueueManager:
    """A connection, and the queue of a job on it."""

    async def __aenter__(self) -> TaskQueueManager:
        self.nc = await nats.connect(settings.NATS_URL)
        self.js = self.nc.jetstream()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.nc.close()

    async def reserve_tasks(self, job_id: int, count: int) -> list[dict[str, Any]]:
        stream, consumer = f"job_{job_id}", f"job-{job_id}-consumer"
        try:
            await self.js.stream_info(stream)
        except nats.js.errors.NotFoundError:
            await self.js.add_stream(name=stream, subjects=[f"job.{job_id}.tasks"])
        config = ConsumerConfig(
            durable_name=consumer,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=settings.NATS_TASK_TTR,
            max_deliver=settings.NATS_MAX_DELIVER,
            deliver_policy=DeliverPolicy.ALL,
            max_ack_pending=settings.NATS_MAX_ACK_PENDING,
            filter_subject=f"job.{job_id}.tasks",
        )
        await self.js.add_consumer(stream, config)
        pull = await self.js.pull_subscribe(f"job.{job_id}.tasks", consumer, stream=stream)
        try:
            messages = await pull.fetch(count, timeout=WAIT)
        except nats.errors.TimeoutError:
            return []
        return [{**json.loads(m.data), "reply_subject": m.reply} for m in messages]


class BeforeJobViewSet(JobViewSet):
    """Jobs of any status are served, and every request connects."""

    @action(detail=True, methods=["get", "post"], url_path="tasks")
    def tasks(self, request: Request, pk: Any = None) -> Response:
        job = self.get_object()
        body = request.data if isinstance(request.data, dict) else {}
        count = int(body.get("batch_size") or request.query_params.get("batch") or 1)

        async def get_tasks() -> list[dict[str, Any]]:
            async with TaskQueueManager() as manager:
                return await manager.reserve_tasks(job.pk, count)

        return Response({"tasks": async_to_sync(get_tasks)()})


router = DefaultRouter()
router.register("jobs", BeforeJobViewSet, basename="job")
router.register("projects", ProjectViewSet, basename="project")
router.register("ml/pipelines", PipelineViewSet, basename="pipeline")
