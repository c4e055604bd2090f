"""/api/v2/: what people and workers ask for."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from natslease.contrib.antenna import (
    FINAL,
    IncompleteJobFilter,
    JobQueueMixin,
    WorkerInfo,
    WorkerViewSet,
    note_seen,
    worker_of,
)
from natslease.contrib.antenna.filters import flag
from natslease.contrib.django import LeaseRef
from natslease.contrib.drf import OptionalSlashRouter

from . import tasks
from .models import Job, Pipeline, ProcessingService, Project
from .serializers import (
    JobNameSerializer,
    JobSerializer,
    PipelineSerializer,
    ProcessingServiceSerializer,
    ProjectSerializer,
    RegistrationSerializer,
)


class ProjectViewSet(viewsets.ReadOnlyModelViewSet):
    """The projects that the token may see."""

    serializer_class = ProjectSerializer

    def get_queryset(self) -> QuerySet[Project]:
        return self.request.user.projects.order_by("pk")

    @action(detail=True, methods=["post"], url_path="pipelines")
    def pipelines(self, request: Request, pk: Any = None) -> Response:
        """A processing service says what it can do."""
        project = self.get_object()
        serializer = RegistrationSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        told = serializer.validated_data
        worker = worker_of(request)
        service, _ = ProcessingService.objects.get_or_create(name=told["processing_service_name"])
        service.client_info = worker.info
        service.save(update_fields=["client_info"])
        service.projects.add(project)
        note_seen(service)
        created, updated = [], []
        for fields in told["pipelines"]:
            slug = fields.pop("slug")
            fields.setdefault("name", slug)
            pipeline, is_new = Pipeline.objects.update_or_create(slug=slug, defaults=fields)
            pipeline.projects.add(project)
            pipeline.processing_services.add(service)
            (created if is_new else updated).append(slug)
        return Response(
            {
                "pipelines_created": created,
                "pipelines_updated": updated,
                "processing_service_id": service.pk,
            }
        )


class PipelineViewSet(viewsets.ReadOnlyModelViewSet):
    """Pipelines; nothing here needs the queue."""

    serializer_class = PipelineSerializer

    def get_queryset(self) -> QuerySet[Pipeline]:
        return pipelines_of(self.request)


class ProcessingServiceViewSet(viewsets.ReadOnlyModelViewSet):
    """Processing services, and whether they are online."""

    serializer_class = ProcessingServiceSerializer

    def get_queryset(self) -> QuerySet[ProcessingService]:
        mine = self.request.user.projects.all()
        return ProcessingService.objects.filter(projects__in=mine).distinct().order_by("pk")


def pipelines_of(request: Request) -> QuerySet[Pipeline]:
    """The pipelines of the projects that the token may see."""
    mine = request.user.projects.all()
    return Pipeline.objects.filter(projects__in=mine).distinct().order_by("pk")


class JobViewSet(
    JobQueueMixin,
    mixins.CreateModelMixin,
    mixins.RetrieveModelMixin,
    mixins.ListModelMixin,
    viewsets.GenericViewSet,
):
    """Jobs, and their tasks and results."""

    serializer_class = JobSerializer
    filter_backends = (IncompleteJobFilter,)

    def get_queryset(self) -> QuerySet[Job]:
        mine = self.request.user.projects.all()
        return Job.objects.filter(project__in=mine).select_related("pipeline").order_by("-pk")

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Jobs by pipeline, status and dispatch mode; with ``ids_only`` any one, for workers."""
        jobs = self.filter_queryset(self.get_queryset())
        asked = request.query_params
        if slugs := [s for s in asked.get("pipeline__slug__in", "").split(",") if s]:
            jobs = jobs.filter(pipeline__slug__in=slugs)
        for name in ("dispatch_mode", "status"):
            if value := asked.get(name):
                if value not in dict(Job._meta.get_field(name).choices):
                    raise ValidationError({name: f"{value[:40]!r} is none"})
                jobs = jobs.filter(**{name: value})
        worker = worker_of(request)
        if not flag(request, "ids_only"):
            page = self.paginate_queryset(jobs)
            return self.get_paginated_response(self.get_serializer(page, many=True).data)
        self.note_worker(worker, None)
        limit = self.batch_size(request, "limit", default=1)
        found = JobNameSerializer(jobs.order_by("?")[:limit], many=True)
        return Response({"results": found.data})

    @action(detail=True, methods=["post"])
    def run(self, request: Request, pk: Any = None) -> Response:
        """Has the job's images queued."""
        return self._begin(("CREATED",))

    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: Any = None) -> Response:
        """Queues the images anew that have no result yet."""
        return self._begin(FINAL)

    def _begin(self, allowed: tuple[str, ...]) -> Response:
        job = self.get_object()
        if job.status not in allowed:
            raise ValidationError({"error": f"job {job.pk} is {job.status}"})
        job.begin_run()
        transaction.on_commit(partial(tasks.queue_images.delay, job.pk, job.run))
        return Response(self.get_serializer(job).data, status=202)

    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: Any = None) -> Response:
        """Ends the job, and has its queue removed."""
        job = self.get_object()
        if job.status in FINAL:
            raise ValidationError({"error": f"job {job.pk} is {job.status}"})
        job.status = "CANCELING"
        job.save(update_fields=["status", "updated_at"])
        transaction.on_commit(partial(tasks.clean_up.delay, job.pk))
        return Response(self.get_serializer(job).data, status=202)

    # What JobQueueMixin asks for.

    def pipelines(self) -> QuerySet[Pipeline]:
        return pipelines_of(self.request)

    def projects(self) -> QuerySet[Project]:
        return self.request.user.projects.all()

    def queue_result(self, job: Job, ref: LeaseRef, result: Any) -> dict[str, Any]:
        task = tasks.save_result.delay(job.pk, ref.to_dict(), result)
        return {"task_id": task.id}

    def note_worker(self, worker: WorkerInfo, job: Job | None) -> None:
        if worker.service:
            mine = self.request.user.projects.all()
            note_seen(ProcessingService.objects.filter(name=worker.service, projects__in=mine))
        if job is not None:
            note_seen(job, "last_contact")


router = OptionalSlashRouter()
router.register("jobs", JobViewSet, basename="job")
router.register("projects", ProjectViewSet, basename="project")
router.register("workers", WorkerViewSet, basename="worker")
router.register("ml/pipelines", PipelineViewSet, basename="pipeline")
router.register("ml/processing_services", ProcessingServiceViewSet, basename="service")
