"""Celery tasks."""

from __future__ import annotations

from celery import shared_task

from natslease.contrib.django import LeaseRef
from natslease.contrib.django.inbox import apply_once


@shared_task
def save_result(lease: dict[str, str], text: str) -> bool:
    """Saves a result once, and acknowledges its task."""
    from .models import Result

    ref = LeaseRef.from_dict(lease)
    with apply_once(ref) as first:
        if first:
            Result.objects.create(task=f"{ref.stream} {ref.seq}", text=text)
    return first
