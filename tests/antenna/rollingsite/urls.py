"""The API of a web process of before."""

from __future__ import annotations

from typing import Any

from django.urls import include, path

from main.views import JobViewSet
from main.views import router as router_of_after
from natslease.contrib.django import LeaseRef
from natslease.contrib.drf import OptionalSlashRouter

from .tasks import process_result


class JobViewSetOfBefore(JobViewSet):  # type: ignore[misc]
    """Sends Celery the message of before."""

    def queue_result(self, job: Any, ref: LeaseRef, result: Any) -> dict[str, Any]:
        return {"task_id": process_result.delay(job.pk, result, ref.ack_subject).id}


router = OptionalSlashRouter()
for prefix, viewset, name in router_of_after.registry:
    router.register(prefix, JobViewSetOfBefore if viewset is JobViewSet else viewset, name)

urlpatterns = [path("api/v2/", include(router.urls))]
