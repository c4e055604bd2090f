import random
import time

from django.urls import include, path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

import natslease
from main.models import Job
from main.views import JobViewSet, router
from natslease.contrib.antenna import WorkerInfo
from natslease.contrib.django import error_response, waiting


def retry_after() -> float:
    """About what is told during an outage, in seconds."""
    return random.uniform(1.5, 4.0)


def refuse(request: Request) -> natslease.Error:
    """Until the moment that the path names, waits as a view waits for tasks, and ends as that does
    when NATS goes away. Later there is nothing to wait for."""
    left = float(request.query_params.get("until", "0")) - time.time()
    if left > 0:
        try:
            with waiting(request):
                time.sleep(left)
        except natslease.Busy as error:
            return error
    return natslease.Busy("not asked", retry_after=retry_after())


class Stub(APIView):
    """A control: the same answers, with nothing behind them."""

    def post(self, request: Request) -> Response:
        status, body, headers = error_response(refuse(request)) or (500, {}, {})
        return Response(body, status=status, headers=headers)


class WithoutQueue(JobViewSet):
    """Another: the same view, up to where it would ask NATS."""

    def _admit(self, worker: WorkerInfo, job: Job | None) -> float:
        self.note_worker(worker, job)
        raise refuse(self.request)


urlpatterns = [
    path("api/v2/stub/", Stub.as_view()),
    path("api/v2/without/<int:pk>/", WithoutQueue.as_view({"post": "tasks"})),
    path("api/v2/", include(router.urls)),
]
