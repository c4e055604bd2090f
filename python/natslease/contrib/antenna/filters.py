"""What lists of jobs can be filtered by."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request

from . import _names

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")
# A job has four or five stages; a filter must name their places, for SQLite has no other way.
_MAX_STAGES = 16


def flag(request: Request, name: str) -> bool:
    """A query parameter that is on or off.

    Raises:
        ValidationError: it is neither.
    """
    text = request.query_params.get(name, "").lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValidationError({name: f"is {text[:40]!r}: give 1 or 0"})


def results_are_in() -> Q:
    """Jobs whose results stage is over. Works on PostgreSQL and on SQLite."""
    found = Q()
    for place in range(_MAX_STAGES):
        stage = f"progress__stages__{place}"
        found |= Q(
            **{f"{stage}__key": _names.RESULTS_STAGE, f"{stage}__status__in": list(_names.FINAL)}
        )
    return found


def incomplete(jobs: QuerySet[Any]) -> QuerySet[Any]:
    """The jobs among these that a worker may still get something from: not those whose status is
    final, and not those whose results are in."""
    over = jobs.model._default_manager.filter(Q(status__in=_names.FINAL) | results_are_in())
    # Not exclude(over): what has no such stage would be excluded with it.
    left: QuerySet[Any] = jobs.exclude(pk__in=over.values("pk"))
    return left


class IncompleteJobFilter(BaseFilterBackend):
    """``?incomplete_only=1`` leaves out jobs that are over: by their top-level status, and by that
    of their results stage."""

    def filter_queryset(
        self, request: Request, queryset: QuerySet[Any], view: Any
    ) -> QuerySet[Any]:
        """See the class."""
        return incomplete(queryset) if flag(request, "incomplete_only") else queryset
