"""What there is on the example's site, and its API as a worker sees it. Needs Django set up."""

from __future__ import annotations

import time
from typing import Any


class World:
    """A member of a project, its pipeline, and images; and somebody else's project."""

    def __init__(self, images: int = 20) -> None:
        from django.contrib.auth import get_user_model
        from rest_framework.authtoken.models import Token

        from main.models import Image, Pipeline, Project

        users = get_user_model().objects
        self.user = users.create(username="worker")
        self.token = Token.objects.create(user=self.user).key
        self.project = Project.objects.create(name="moths")
        self.project.members.add(self.user)
        self.pipeline = self._pipeline("moths", self.project)
        self.images = Image.objects.bulk_create(
            Image(project=self.project, url=f"https://images.example.org/{n}.jpg")
            for n in range(images)
        )
        self.others = Project.objects.create(name="bees")
        self.foreign_pipeline = self._pipeline("bees", self.others)
        self._pipelines = Pipeline

    @staticmethod
    def _pipeline(slug: str, project: Any) -> Any:
        from main.models import Pipeline

        pipeline = Pipeline.objects.create(slug=slug, name=slug)
        pipeline.projects.add(project)
        return pipeline

    def pipeline_named(self, slug: str) -> Any:
        """Another pipeline of the project."""
        return self._pipeline(slug, self.project)

    def job(self, status: str = "STARTED", *, images: int = 0, **fields: Any) -> Any:
        """A job with its queue, and so many of the images in it."""
        from main.models import Job
        from natslease.contrib.antenna import JobQueue

        fields = {"project": self.project, "pipeline": self.pipeline, "run": "r1", **fields}
        job = Job.objects.create(status=status, **fields)
        job.images.set(self.images[:images])
        if images:
            queue = JobQueue(job.pk, run=job.run)
            queue.ensure()
            report = queue.publish(
                {"id": f"{job.pk}-{i.pk}", "image_id": str(i.pk), "image_url": i.url, "extra": [1]}
                for i in self.images[:images]
            )
            assert len(report.accepted) == images
        return job

    def foreign_job(self, **fields: Any) -> Any:
        """A job of a project that the token may not see."""
        return self.job(project=self.others, pipeline=self.foreign_pipeline, **fields)


class Api:
    """The site's API for the holder of a token: answers are (status, JSON)."""

    def __init__(self, token: str) -> None:
        from rest_framework.test import APIClient

        self._client = APIClient()
        self._client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
        self.headers: dict[str, str] = {}

    def get(self, path: str, **query: Any) -> tuple[int, Any]:
        return self._answer(self._client.get(f"/api/v2{path}", query))

    def post(self, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        return self._answer(
            self._client.post(f"/api/v2{path}", {} if body is None else body, format="json")
        )

    def raw(self, path: str, data: bytes) -> tuple[int, Any]:
        return self._answer(
            self._client.post(f"/api/v2{path}", data, content_type="application/json")
        )

    def _answer(self, response: Any) -> tuple[int, Any]:
        self.headers = dict(response.items())
        return response.status_code, response.json() if response.content else None


def await_nats() -> None:
    """Returns when the site's client reaches the server again: its circuit breaker may be open."""
    import natslease
    from natslease.contrib.django import clients

    def missing() -> float:
        try:
            clients["default"].ping()
        except natslease.Unavailable as error:
            return max(error.retry_after, 0.01)
        return 0.0

    until = time.monotonic() + 20
    while pause := missing():
        assert time.monotonic() < until
        time.sleep(pause)
