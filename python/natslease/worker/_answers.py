"""What is in the requests and answers of a server that gives out tasks over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._task import Task


def path_of(job: str, what: str) -> str:
    return f"jobs/{job}/{what}" if job else f"jobs/{what}"


def by_job(
    items: list[tuple[Task, bytes]], together: bool
) -> Iterator[tuple[str, list[tuple[Task, bytes]]]]:
    """What goes into one request each; "" where jobs may be mixed and are."""
    jobs: dict[str, list[tuple[Task, bytes]]] = {}
    for item in items:
        jobs.setdefault(item[0].job, []).append(item)
    if len(jobs) > 1 and together:
        yield "", items
    else:
        yield from jobs.items()


def read_task(fields: Any, job: str) -> Task | None:
    if not isinstance(fields, dict):
        return None
    key = fields.get("reply_subject")
    if not isinstance(key, str) or not key:
        return None
    attempt = fields.get("attempt")
    return Task(
        key,
        fields,
        id=str(fields.get("id", "")),
        job=str(fields.get("job_id", job)),
        attempt=attempt if isinstance(attempt, int) else 0,
    )


def read_statuses(items: Any) -> dict[str, str]:
    """The statuses by reply subject, of an answer that may have anything in it."""
    if not isinstance(items, list):
        return {}
    return {
        item["reply_subject"]: item["status"]
        for item in items
        if isinstance(item, dict)
        and isinstance(item.get("reply_subject"), str)
        and isinstance(item.get("status"), str)
    }


def failure_result(task: Task, reason: str) -> dict[str, Any]:
    result: dict[str, Any] = {"error": reason}
    if isinstance(task.payload, dict) and "image_id" in task.payload:
        result["image_id"] = task.payload["image_id"]
    return result
