"""What results are saved as."""

from __future__ import annotations

from django.db import models


class Result(models.Model):
    """A result. That there is one for each task is for the inbox to see to: nothing here does."""

    task: models.CharField[str, str] = models.CharField(max_length=100)
    text: models.TextField[str, str] = models.TextField()
