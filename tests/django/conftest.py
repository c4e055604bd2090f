"""What the tests of Django, Django REST framework and Celery share."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import django
import pytest

import natslease
from natslease.testing import Server

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.append(str(HERE.parents[1] / "examples" / "antenna"))  # for its PostgreSQL
os.environ["DJANGO_SETTINGS_MODULE"] = "testsite.settings"


def pytest_report_header() -> str:
    """What the tests run with."""
    names = ("django", "djangorestframework", "celery")
    return ", ".join(f"{name} {version(name)}" for name in names)


def pytest_configure() -> None:
    """pytest-django looks for the settings before it reads this file."""
    django.setup()


@pytest.fixture
def site(settings: Any, nats_server: Server) -> Any:
    """The settings, with the test's own server as the default."""
    settings.NATSLEASE = {"default": {"URL": nats_server.url, "TIMEOUT": 2.0}}
    settings.NATSLEASE_HTTP = {}
    return settings


@pytest.fixture
def images(site: Any) -> natslease.Queue:
    """A queue that exists, by the client of the settings."""
    from natslease.contrib.django import clients

    queue = clients["default"].queue("images", ack_wait=30, max_deliver=3)
    queue.ensure()
    return queue


@pytest.fixture
def client() -> Any:
    """Django's test client; of natslease's there is ``clients``."""
    from django.test import Client

    return Client()
