"""The Django project that the tests of this folder run, in the test's process and under servers."""

from .celery import app

__all__ = ["app"]
