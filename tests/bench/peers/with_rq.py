"""RQ."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry as Retries
from rq import Queue, Retry
from rq.registry import StartedJobRegistry

from .peer import Framework, Producer
from .setting import Setting, handle


class _Producer:
    def __init__(self, setting: Setting) -> None:
        limits: dict[str, Any] = {}
        if setting.timeout:
            limits = {"socket_timeout": setting.timeout, "socket_connect_timeout": setting.timeout}
            limits["retry"] = Retries(NoBackoff(), 0)  # of redis-py: 10 by default
        self._redis = Redis.from_url(setting.url, **limits)
        self.queue = Queue(setting.queue, connection=self._redis)
        # Who is to get a task again must be allowed to.
        self._again = Retry(max=3) if setting.lease else None

    def publish(self, payload: bytes, count: int) -> None:
        text = payload.decode()
        if count == 1:
            self.queue.enqueue(handle, text, retry=self._again)
            return
        for start in range(0, count, 1_000):
            few = [
                Queue.prepare_data(handle, args=(text,), retry=self._again)
                for _ in range(min(1_000, count - start))
            ]
            self.queue.enqueue_many(few)

    def close(self) -> None:
        self._redis.close()


class Peer(Framework):
    """A queue, and a worker that forks for each task, as by default; or a SimpleWorker."""

    def prepare(self) -> None:
        """The first task makes the queue."""

    def left(self) -> int:
        queue = _Producer(self.setting).queue
        started = StartedJobRegistry(queue=queue).get_job_count(cleanup=False)
        return int(queue.count + started)

    def open(self) -> Producer:
        return _Producer(self.setting)

    def command(self) -> list[str]:
        options = ["--url", self.setting.url, "--quiet"]
        if self.row.variant == "simple":
            options += ["--worker-class", "rq.worker.SimpleWorker"]
        if self.setting.hold and self.setting.lease:
            # The last is 15 s more than a worker waits for a task, and does nothing else.
            options += ["--job-monitoring-interval", "1", "--maintenance-interval", "1"]
            options += ["--worker-ttl", "16"]
        return ["rq.cli", "worker", *options, self.setting.queue]
