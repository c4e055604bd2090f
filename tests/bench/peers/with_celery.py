"""Celery on Redis: tasks are acknowledged when they are done (task_acks_late)."""

from __future__ import annotations

from typing import Any

from celery import Celery

from .peer import Framework, Producer
from .setting import Setting, handle

SETTING = Setting.here()
app = Celery("peers", broker=SETTING.url)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_default_queue=SETTING.queue,
    task_ignore_result=True,
)
_TRANSPORT: dict[str, Any] = {}
if SETTING.lease:
    app.conf.task_acks_late = True
    # The last two: looks for what others have lost every second, and not every 100 s.
    _TRANSPORT = {
        "visibility_timeout": SETTING.lease,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }
if SETTING.timeout:
    app.conf.task_publish_retry_policy = {"max_retries": 1, "interval_start": 0}
    _TRANSPORT |= {"socket_timeout": SETTING.timeout, "socket_connect_timeout": SETTING.timeout}
app.conf.broker_transport_options = _TRANSPORT


@app.task(name="work")
def work(text: str) -> None:
    """The task."""
    handle(text)


class _Producer:
    def publish(self, payload: bytes, count: int) -> None:
        for _ in range(count):
            work.delay(payload.decode())

    def close(self) -> None:
        app.close()


class Peer(Framework):
    """An app without a result backend."""

    def prepare(self) -> None:
        """The first task makes the queue."""

    def left(self) -> int:
        with app.connection_for_read() as connection:
            channel: Any = connection.default_channel  # of Redis
            client = channel.client
            return int(client.llen(self.setting.queue) + client.hlen("unacked"))

    def open(self) -> Producer:
        return _Producer()

    def command(self) -> list[str]:
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
        return ["celery", "-A", __name__, "worker", "-c", "1", "-P", "prefork", *quiet]
