"""Projects, pipelines, processing services, images, jobs and what was found on the images."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

from natslease.contrib.antenna import ASYNC_API, INTERNAL, RESULTS_STAGE, SYNC_API, Liveness

STATUSES = [
    "CREATED",
    "PENDING",
    "RECEIVED",
    "STARTED",
    "SUCCESS",
    "FAILURE",
    "RETRY",
    "CANCELING",
    "REVOKED",
    "UNKNOWN",
]


class Project(models.Model):
    """Who is a member sees what is in it."""

    name = models.CharField(max_length=200)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="projects")


class ProcessingService(models.Model):
    """Machines that work on tasks."""

    name = models.CharField(max_length=200, unique=True)
    projects = models.ManyToManyField(Project, related_name="processing_services")
    last_seen = models.DateTimeField(null=True)
    client_info = models.JSONField(default=dict)

    @property
    def status(self) -> str:
        """Whether it is online."""
        return Liveness.of(self.last_seen)


class Pipeline(models.Model):
    """What can be done with images."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=200)
    version = models.IntegerField(default=1)
    config = models.JSONField(default=dict)
    projects = models.ManyToManyField(Project, related_name="pipelines")
    processing_services = models.ManyToManyField(ProcessingService, related_name="pipelines")


class Image(models.Model):
    """An image of a camera trap."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="images")
    url = models.URLField(max_length=500)


def new_progress() -> dict[str, Any]:
    """How far a job is that has not begun."""
    stages = [
        {"key": key, "name": key.title(), "status": "CREATED", "progress": 0.0}
        for key in ("collect", "process", RESULTS_STAGE)
    ]
    return {"summary": {"status": "CREATED", "progress": 0.0}, "stages": stages}


class Job(models.Model):
    """A pipeline's work on images of a project."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="jobs")
    pipeline = models.ForeignKey(Pipeline, models.CASCADE, related_name="jobs")
    name = models.CharField(max_length=200, default="")
    status = models.CharField(max_length=20, default="CREATED", choices=[(s, s) for s in STATUSES])
    # Known when the job is created, so that workers can look for it before it runs.
    dispatch_mode = models.CharField(
        max_length=20, default=ASYNC_API, choices=[(m, m) for m in (INTERNAL, SYNC_API, ASYNC_API)]
    )
    progress = models.JSONField(default=new_progress)
    # Names the run: a job that is retried has another, so that its images are queued anew.
    run = models.CharField(max_length=40, default="")
    images = models.ManyToManyField(Image, related_name="jobs")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    last_contact = models.DateTimeField(null=True)

    def begin_run(self) -> None:
        """Gives the job a new run."""
        self.run = uuid.uuid4().hex
        self.status = "PENDING"
        self.progress = new_progress()
        self.save(update_fields=["run", "status", "progress", "updated_at"])

    def set_stage(self, key: str, status: str, progress: float, **counts: int) -> None:
        """Notes how far a stage is; the caller saves."""
        for stage in self.progress["stages"]:
            if stage["key"] == key:
                stage.update(status=status, progress=round(progress, 4), **counts)
        done = [stage["progress"] for stage in self.progress["stages"]]
        self.progress["summary"] = {"status": self.status, "progress": sum(done) / len(done)}

    def touch(self) -> None:
        """A worker has asked for it."""
        Job.objects.filter(pk=self.pk).update(last_contact=timezone.now())


class Detection(models.Model):
    """What a worker has found on an image."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="detections")
    image = models.ForeignKey(Image, models.CASCADE, related_name="detections")
    body = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)


class JobLog(models.Model):
    """A line that a job's logger has written."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="lines")
    level = models.CharField(max_length=10)
    message = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)
