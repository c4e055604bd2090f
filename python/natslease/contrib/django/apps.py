"""The Django application: its checks, its table and its commands."""

from __future__ import annotations

from django.apps import AppConfig


class NatsleaseConfig(AppConfig):
    """``INSTALLED_APPS = [..., "natslease.contrib.django"]``"""

    name = "natslease.contrib.django"
    label = "natslease"
    verbose_name = "Task queues"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401 (registers them)
