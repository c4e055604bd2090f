"""A Celery application that has used its queue before its worker forks."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery
from celery.signals import worker_shutdown

from preloaded import report

app = Celery("programs")
app.config_from_object("celery_config")


@app.task(name="work")
def work() -> None:
    report("task")
    time.sleep(0.02)  # so that other children get the next tasks


@worker_shutdown.connect
def in_parent(**_: Any) -> None:
    report("shutdown")
