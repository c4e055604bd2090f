"""URLs."""

from __future__ import annotations

import os

from django.urls import include, path

from natslease.contrib.drf import OptionalSlashRouter

from . import views, watch

if os.environ.get("SITE_WATCHED"):
    watch.install()

router = OptionalSlashRouter()
router.register("queues", views.QueueViewSet, basename="queue")

urlpatterns = [
    path("api/", include(router.urls)),
    path("plain/tasks/", views.tasks),
    path("plain/async/", views.tasks_async),
    path("plain/careless/", views.careless),
    path("plain/stub/", views.stub),
    path("unrelated/", views.unrelated),
    path("queues/", include("natslease.contrib.django.urls")),
]
