import random

from django.urls import include, path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

import natslease
from main.models import Job
from main.views import JobViewSet, router
from natslease.contrib.antenna import WorkerInfo


def retry_after() -> float:
    """About what is told during an outage, in seconds."""
    return random.uniform(0.5, 3.0)


class Stub(APIView):
    """A control: the same answer, with nothing behind it."""

    def post(self, request: Request) -> Response:
        seconds = retry_after()
        body = {"error": "Task queue temporarily unavailable", "retry_after": seconds}
        return Response(body, status=503, headers={"Retry-After": str(round(seconds + 0.5))})


class WithoutQueue(JobViewSet):
    """Another: the same view, up to where it would ask NATS."""

    def _admit(self, worker: WorkerInfo, job: Job | None) -> float:
        self.note_worker(worker, job)
        raise natslease.CircuitOpen("not asked", retry_after=retry_after())


urlpatterns = [
    path("api/v2/stub/", Stub.as_view()),
    path("api/v2/without/<int:pk>/", WithoutQueue.as_view({"post": "tasks"})),
    path("api/v2/", include(router.urls)),
]
