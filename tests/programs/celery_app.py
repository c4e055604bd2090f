"""A Celery application that has used its queue before its worker forks."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery
from celery.signals import worker_shutdown

from preloaded import queue, report
from work import Done, round_trip

app = Celery("programs")
app.config_from_object("celery_config")


@app.task(name="work")
def work() -> Done:
    done = round_trip(queue)
    time.sleep(0.02)  # so that other children get the next tasks
    return done


@worker_shutdown.connect
def in_parent(**_: Any) -> None:
    report("shutdown")
