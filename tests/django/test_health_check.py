"""The check for django-health-check (which needs Django 5.2)."""

from __future__ import annotations

import asyncio
from typing import Any

from django.test import RequestFactory
from health_check.views import HealthCheckView

from natslease.testing import Server

VIEW = HealthCheckView.as_view(checks=["natslease.contrib.django.health_check.NATS"])


def probe() -> Any:
    async def ask() -> Any:
        return await VIEW(RequestFactory().get("/", {"format": "json"}))

    return asyncio.run(ask())


def test_it_tells_whether_nats_answers(site: Any, nats_server: Server) -> None:
    assert probe().status_code == 200
    nats_server.kill()
    answer = probe()
    assert answer.status_code == 500
    assert b"NATS does not answer" in answer.content
    nats_server.start()
