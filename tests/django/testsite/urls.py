"""URLs."""

from __future__ import annotations

from django.urls import include, path

from natslease.contrib.drf import OptionalSlashRouter

from . import views

router = OptionalSlashRouter()
router.register("queues", views.QueueViewSet, basename="queue")

urlpatterns = [
    path("api/", include(router.urls)),
    path("plain/tasks/", views.tasks),
    path("plain/async/", views.tasks_async),
    path("unrelated/", views.unrelated),
    path("queues/", include("natslease.contrib.django.urls")),
]
