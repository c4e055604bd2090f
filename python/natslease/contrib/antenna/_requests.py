"""What requests of workers say, and how they are answered."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request

DEFAULT_WAIT = 0.5
MAX_ITEMS = 10_000


def body_of(request: Request) -> dict[str, Any]:
    """The body, which is an object."""
    if not isinstance(request.data, dict):
        raise ValidationError({"error": "the body is not an object"})
    return request.data


def items_of(request: Request, name: str) -> list[Any]:
    """The list of that name."""
    items = body_of(request).get(name)
    if not isinstance(items, list):
        raise ValidationError({name: "is not a list"})
    if len(items) > MAX_ITEMS:
        raise ValidationError({name: f"has more than {MAX_ITEMS:,} items"})
    return items


def wait_of(request: Request) -> float:
    """How long to wait for the first task, in seconds; the longest that is possible is a setting of
    ``NATSLEASE_HTTP``."""
    value = body_of(request).get("wait", request.query_params.get("wait", DEFAULT_WAIT))
    try:
        seconds = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = float("nan")
    if not 0 <= seconds <= 3600:
        raise ValidationError({"wait": ["Must be a number of seconds from 0 to 3600."]})
    return seconds


def slugs_of(named: Any) -> set[str]:
    """Names of pipelines; none when it is not there."""
    if named is None:
        return set()
    if not isinstance(named, list) or not all(_is_slug(slug) for slug in named):
        raise ValidationError({"pipelines": "is not a list of slugs"})
    return set(named)


def _is_slug(slug: Any) -> bool:
    # Databases refuse some of what is not printable.
    return isinstance(slug, str) and slug.isprintable() and len(slug) <= 200


def numbers_of(request: Request, name: str) -> list[int] | None:
    """A list of primary keys; None when it is not there."""
    given = body_of(request).get(name)
    if given is None:
        return None
    if not isinstance(given, list) or not all(type(n) is int and 0 < n < 1 << 63 for n in given):
        raise ValidationError({name: "is not a list of numbers"})
    return given


def refuse_unknown(what: str, named: set[Any], visible: QuerySet[Any], by: str) -> None:
    """Raises NotFound unless all that is named is visible."""
    known = visible.filter(**{f"{by}__in": named}).values_list(by, flat=True)
    if unknown := sorted(named - set(known)):
        listed = ", ".join(map(str, unknown))
        raise NotFound({"error": f"unknown {what}: {listed[:200]}"})


def nak_options_of(request: Request) -> dict[str, Any]:
    """Why tasks have failed, and for how many seconds they are not to be offered."""
    body = body_of(request)
    reason, delay = body.get("reason", ""), body.get("delay", 0)
    if not isinstance(reason, str):
        raise ValidationError({"reason": ["Must be a text."]})
    if isinstance(delay, bool) or not isinstance(delay, (int, float)) or not 0 <= delay <= 86_400:
        raise ValidationError({"delay": ["Must be a number of seconds from 0 to 86400."]})
    return {"reason": reason[:1000], "delay": float(delay)}


def told(item: Any, status: str, error: str = "") -> dict[str, Any]:
    """The answer for one item."""
    lease = item.get("reply_subject") if isinstance(item, dict) else item
    answer = {"reply_subject": lease, "status": status}
    return {**answer, "error": error} if error else answer


def accepted(job_id: Any, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer for results."""
    queued = sum(1 for answer in answers if answer["status"] == "queued")
    body = {"status": "accepted", "results_queued": queued, "tasks": answers}
    return body if job_id is None else {**body, "job_id": job_id}
