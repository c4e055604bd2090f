"""The way into nats-py that the application's code and tests still use. Deprecated."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from natslease.contrib.antenna import nats_queue
from natslease.contrib.antenna.nats_queue import TaskQueueManager
from natslease.testing import Server

nats = pytest.importorskip("nats", reason="nats-py is missing: make test-antenna installs it")

pytestmark = pytest.mark.usefixtures("site")


def test_nc_and_js_open_a_real_connection_when_they_are_used(nats_url: str) -> None:
    async def work(manager: TaskQueueManager) -> Any:
        await manager.ensure_job_resources(7)
        await manager.publish_task(7, {"id": "8"})
        assert manager.nc.is_closed
        await manager.js.publish("job.7.tasks", json.dumps({"id": "9"}).encode())
        assert manager.nc.is_connected
        info = await manager.js.stream_info("job_7")
        pull = await manager.js.pull_subscribe_bind("job-7-consumer", "job_7")
        messages = await pull.fetch(2, timeout=1)
        assert len(messages) == 2
        opened = manager._opened
        assert opened is not None
        return info.state.messages, opened[0]

    async def run() -> Any:
        async with TaskQueueManager(nats_url) as manager:
            return await work(manager)

    messages, nc = async_to_sync(run)()
    assert messages == 2
    assert nc.is_closed
    nats_queue._clients.clear()


def test_they_can_be_replaced_by_the_tests_of_the_application() -> None:
    manager = TaskQueueManager()
    manager.nc, manager.js = "nc", "js"
    assert (manager.nc, manager.js) == ("nc", "js")


@pytest.mark.parametrize("fault", ["frozen", "killed"])
def test_get_connection_has_a_hard_deadline(nats_server: Server, fault: str) -> None:
    async def work() -> None:
        await nats_queue.get_connection(nats_server.url, timeout=1.0)

    if fault == "killed":
        nats_server.kill()
    else:
        nats_server.freeze()
    began = time.monotonic()
    with pytest.raises((asyncio.TimeoutError, OSError, nats.errors.Error)):
        asyncio.run(work())
    assert time.monotonic() - began < 4
    if fault == "frozen":
        nats_server.thaw()


def test_get_connection_connects(nats_url: str) -> None:
    async def work() -> bool:
        nc, js = await nats_queue.get_connection(nats_url)
        await js.account_info()
        connected: bool = nc.is_connected
        await nc.close()
        return connected

    assert asyncio.run(work())
