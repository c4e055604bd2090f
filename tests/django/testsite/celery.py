"""The Celery app."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testsite.settings")
app = Celery("testsite")
app.autodiscover_tasks()
app.conf.imports = ["natslease.contrib.celery"]
if folder := os.environ.get("SITE_BROKER"):
    app.conf.update(broker_url="filesystem://")
    app.conf.broker_transport_options = {
        "data_folder_in": str(Path(folder, "messages")),
        "data_folder_out": str(Path(folder, "written")),
        "control_folder": str(Path(folder, "control")),
        "polling_interval": 0.05,
    }
else:
    app.conf.task_always_eager = True
app.set_default()

if os.environ.get("SITE_PING"):
    import django

    django.setup()
    from natslease.contrib.django import clients

    clients["default"].ping()  # before the pool is forked
