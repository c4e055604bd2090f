"""The inbox."""

from __future__ import annotations

from typing import ClassVar

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies: ClassVar = []

    operations: ClassVar = [
        migrations.CreateModel(
            name="InboxEntry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("alias", models.CharField(default="default", max_length=64)),
                ("stream", models.CharField(max_length=255)),
                ("consumer", models.CharField(max_length=255)),
                (
                    "created",
                    models.BigIntegerField(
                        help_text="When the task was published, in nanoseconds since 1970."
                    ),
                ),
                ("sequence", models.BigIntegerField(help_text="Of the task in its stream.")),
                (
                    "ack_subject",
                    models.CharField(help_text="Of the latest delivery.", max_length=1024),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "to be acknowledged"),
                            ("settled", "settled"),
                            ("gone", "its queue is gone"),
                            ("refused", "is no lease of the queue"),
                        ],
                        default="pending",
                        max_length=8,
                    ),
                ),
                (
                    "attempts",
                    models.PositiveIntegerField(default=0, help_text="To acknowledge it."),
                ),
                ("saved_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("settled_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "verbose_name": "inbox entry",
                "verbose_name_plural": "inbox entries",
                "indexes": [
                    models.Index(
                        condition=models.Q(("settled_at", None)),
                        fields=["attempts", "saved_at"],
                        name="natslease_inbox_pending",
                    ),
                    models.Index(fields=["settled_at"], name="natslease_inbox_settled"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("stream", "created", "sequence", "consumer", "alias"),
                        name="natslease_inbox_once",
                    )
                ],
            },
        ),
    ]
