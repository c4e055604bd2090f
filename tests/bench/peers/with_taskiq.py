"""taskiq with taskiq-nats: tasks are coroutines, and so is enqueueing them."""

from __future__ import annotations

import asyncio
from typing import Any

from nats.js.api import ConsumerConfig
from taskiq_nats import PullBasedJetStreamBroker

import sides

from .peer import Framework, Producer, left
from .setting import Setting, handle
from .with_natspy import ONCE

SETTING = Setting.here()
_CONNECTION: dict[str, Any] = {}
if SETTING.timeout:
    _CONNECTION = {"connect_timeout": SETTING.timeout, **ONCE}

broker = PullBasedJetStreamBroker(
    [SETTING.url],
    subject=SETTING.queue,
    stream_name=SETTING.queue,
    durable=sides.CONSUMER,
    consumer_config=ConsumerConfig(
        durable_name=sides.CONSUMER, ack_wait=SETTING.lease or None, max_ack_pending=1000
    ),
    pull_consume_batch=SETTING.batch,
    **_CONNECTION,
)


async def _work(text: str) -> None:
    handle(text)


work = broker.task(task_name="work")(_work)


class _Broker:
    """The part of an AsyncSide that enqueues."""

    async def open(self, url: str, stream: str) -> None:
        await broker.startup()

    async def publish(self, payload: bytes, count: int) -> None:
        text = payload.decode()
        if count == 1:
            await work.kiq(text)
            return
        for start in range(0, count, 1_000):
            await asyncio.gather(*(work.kiq(text) for _ in range(min(1_000, count - start))))

    async def close(self) -> None:
        await broker.shutdown()


class Peer(Framework):
    """Its broker with a pull consumer."""

    def prepare(self) -> None:
        self.open().close()

    def left(self) -> int:
        return left(self.setting)

    def open(self) -> Producer:
        side: Any = _Broker()
        return sides.InThread(side, self.setting.url, self.setting.queue)

    def command(self) -> list[str]:
        at_once = str(self.setting.batch)
        options = ["--workers", "1", "--max-async-tasks", at_once, "--log-level", "WARNING"]
        return ["taskiq", "worker", *options, f"{__name__}:broker"]
