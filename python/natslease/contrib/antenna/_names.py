"""Antenna's states, names and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from natslease.contrib._acksubjects import STREAM, parts_of

# A job's top-level status.
FINAL = ("SUCCESS", "FAILURE", "REVOKED")
ACTIVE = ("STARTED", "RETRY")  # may serve tasks
RUNNING = ("PENDING", "STARTED", "RETRY", "CANCELING", "UNKNOWN")  # what reapers look at

# How a job's images get to a processing service; only the last has a queue.
INTERNAL = "internal"
SYNC_API = "sync_api"
ASYNC_API = "async_api"

RESULTS_STAGE = "results"
ADVISORY_STREAM_NAME = "advisories"
# What keeps the tasks that were given up, where the site's NATSLEASE setting names nothing.
DEAD_LETTERS = "job_dead_letters"

JETSTREAM_TIMEOUT = 10.0  # seconds for a call
CONNECT_TIMEOUT = 5.0
STREAM_AGE = 24 * 3600.0

_JOB_STREAM = re.compile(r"job_([1-9][0-9]{0,17})")  # what a database takes

_DEFAULTS: dict[str, Any] = {
    "NATS_URL": "nats://localhost:4222",
    "NATS_TASK_TTR": 300,
    "NATS_MAX_DELIVER": 2,
    "NATS_MAX_ACK_PENDING": 1000,
}


def setting(name: str) -> Any:
    """One of Antenna's settings, or its default."""
    return getattr(settings, name, _DEFAULTS[name])


def stream_name(job_id: int) -> str:
    return f"job_{job_id}"


def subject(job_id: int) -> str:
    return f"job.{job_id}.tasks"


def consumer_name(job_id: int) -> str:
    return f"job-{job_id}-consumer"


def dlq_consumer_name(job_id: int) -> str:
    """The reader of advisories that earlier versions of the application made for each job."""
    return f"job-{job_id}-dlq"


def job_of_stream(stream: str) -> int | None:
    """The job that a stream belongs to; None when it is no job's."""
    match = _JOB_STREAM.fullmatch(stream)
    return int(match[1]) if match else None


def job_of_ack_subject(ack_subject: str) -> int | None:
    """The job that an ack subject speaks of. Nothing else about it is checked here."""
    parts = parts_of(ack_subject)
    return job_of_stream(parts[STREAM]) if len(parts) > STREAM else None


def queue_options(alias: str = "default") -> Mapping[str, Any]:
    """How the queue of a job is made."""
    site = getattr(settings, "NATSLEASE", {}).get(alias, {})
    return {
        "ack_wait": float(setting("NATS_TASK_TTR")),
        "max_deliver": int(setting("NATS_MAX_DELIVER")),
        "max_ack_pending": int(setting("NATS_MAX_ACK_PENDING")),
        "max_age": STREAM_AGE,
        "retention": "limits",
        "dead_letters": site.get("DEAD_LETTERS") or DEAD_LETTERS,
    }


def names(job_id: int) -> Mapping[str, Any]:
    """What the queue of a job is called."""
    return {
        "stream": stream_name(job_id),
        "subject": subject(job_id),
        "consumer": consumer_name(job_id),
    }
