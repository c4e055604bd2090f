"""The inbox: which tasks' results were applied, and what is still to be acknowledged."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.db import models
from django.utils import timezone

from ._leases import LeaseRef

_STATUSES = [
    ("pending", "to be acknowledged"),
    ("settled", "settled"),
    ("gone", "its queue is gone"),
    ("refused", "is no lease of the queue"),
]


class InboxEntry(models.Model):
    """One task whose result was saved in the transaction that wrote this row.

    ``settled_at`` is empty until the server has said that the task is settled, or its queue gone.
    """

    PENDING: ClassVar = "pending"
    SETTLED: ClassVar = "settled"
    GONE: ClassVar = "gone"
    REFUSED: ClassVar = "refused"

    alias: models.CharField[str, str] = models.CharField(max_length=64, default="default")
    stream: models.CharField[str, str] = models.CharField(max_length=255)
    consumer: models.CharField[str, str] = models.CharField(max_length=255)
    created: models.BigIntegerField[int, int] = models.BigIntegerField(
        help_text="When the task was published, in nanoseconds since 1970."
    )
    sequence: models.BigIntegerField[int, int] = models.BigIntegerField(
        help_text="Of the task in its stream."
    )
    ack_subject: models.CharField[str, str] = models.CharField(
        max_length=1024, help_text="Of the latest delivery."
    )
    status: models.CharField[str, str] = models.CharField(
        max_length=8, choices=_STATUSES, default="pending"
    )
    attempts: models.PositiveIntegerField[int, int] = models.PositiveIntegerField(
        default=0, help_text="To acknowledge it."
    )
    saved_at: models.DateTimeField[datetime, datetime] = models.DateTimeField(default=timezone.now)
    settled_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(
        null=True, blank=True
    )

    class Meta:
        verbose_name = "inbox entry"
        verbose_name_plural = "inbox entries"
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["stream", "created", "sequence", "consumer", "alias"],
                name="natslease_inbox_once",
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["attempts", "saved_at"],
                name="natslease_inbox_pending",
                condition=models.Q(settled_at=None),
            ),
            models.Index(fields=["settled_at"], name="natslease_inbox_settled"),
        ]

    def __str__(self) -> str:
        return f"{self.stream} {self.sequence}: {self.status}"

    @property
    def ref(self) -> LeaseRef:
        """Its latest delivery."""
        return LeaseRef(self.ack_subject, self.alias)
