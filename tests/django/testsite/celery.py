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
        "data_folder_in": folder,
        "data_folder_out": folder,
        "control_folder": str(Path(folder, "control")),
        "processed_folder": str(Path(folder, "processed")),
    }
else:
    app.conf.task_always_eager = True
app.set_default()
