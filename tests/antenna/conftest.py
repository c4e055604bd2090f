"""What the tests of Antenna share: the example's site, with the test's own server."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
import pytest

from antennasite import Api, World
from natslease.testing import Server

SITE = Path(__file__).resolve().parents[2] / "examples" / "antenna"
sys.path.insert(0, str(SITE))
_data = tempfile.TemporaryDirectory(prefix="antenna-")
os.environ["ANTENNA_DATA"] = _data.name
os.environ["DJANGO_SETTINGS_MODULE"] = "antenna.settings"


def pytest_configure() -> None:
    """pytest-django looks for the settings before it reads this file."""
    django.setup()


@pytest.fixture
def site(settings: Any, nats_server: Server) -> Any:
    """The settings, with the test's own server; Celery's tasks run where they are sent."""
    settings.NATS_URL = nats_server.url
    settings.NATSLEASE = {"default": {"TIMEOUT": 2.0, "DEAD_LETTERS": "job_dead_letters"}}
    settings.NATSLEASE_HTTP = {"ACCEPT_LEASES": ["raw", "signed"], "EMIT_LEASES": "signed"}
    from antenna.celery import app

    was = app.conf.task_always_eager, app.conf.task_eager_propagates
    app.conf.task_always_eager, app.conf.task_eager_propagates = True, True
    yield settings
    app.conf.task_always_eager, app.conf.task_eager_propagates = was


@pytest.fixture
def world(site: Any, transactional_db: None) -> World:
    """What there is; transactions are real."""
    return World()


@pytest.fixture
def api(world: World) -> Api:
    """The member's."""
    return Api(world.token)


@pytest.fixture
def spy(nats_server: Server) -> Callable[[], int]:
    """How many messages clients have sent to the server so far."""

    def count() -> int:
        return int(nats_server.varz()["in_msgs"])

    return count
