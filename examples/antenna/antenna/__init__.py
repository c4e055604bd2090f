"""A small Antenna: camera-trap images, pipelines, and workers that pull tasks over HTTP."""

from .celery import app as celery_app

__all__ = ["celery_app"]
