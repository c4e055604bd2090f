"""Celery: queues images, saves results, looks after jobs. Prefork; nothing about forks is here."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "antenna.settings")

app = Celery("antenna")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
