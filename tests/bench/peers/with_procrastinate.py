"""procrastinate, on PostgreSQL: tasks are coroutines here, which is what it is made for."""

from __future__ import annotations

from typing import Any

import procrastinate
import psycopg
from procrastinate import JobContext, PsycopgConnector

from .peer import Framework, Producer
from .setting import Setting, handle

SETTING = Setting.here()
_LIMITS: dict[str, Any] = {}
if SETTING.timeout:
    _LIMITS = {"timeout": SETTING.timeout, "kwargs": {"connect_timeout": SETTING.timeout}}

_MENDS = bool(SETTING.lease and SETTING.hold)  # where workers are killed

# Synchronous code gets a synchronous connector with the same options.
app = procrastinate.App(
    connector=PsycopgConnector(conninfo=SETTING.url, **_LIMITS),
    worker_defaults={
        "queues": [SETTING.queue, "stalled"],
        **({"update_heartbeat_interval": 1.0} if _MENDS else {}),
    },
)


async def _work(text: str) -> None:
    handle(text)


work = app.task(name="work", queue=SETTING.queue)(_work)


if _MENDS:
    # The recipe of its documentation ("Retry stalled jobs"), every second and not every 10 minutes.
    async def _retry_stalled_jobs(context: JobContext, timestamp: int) -> None:
        stalled = await app.job_manager.get_stalled_jobs(
            queue=SETTING.queue, seconds_since_heartbeat=SETTING.lease
        )
        for job in stalled:
            await app.job_manager.retry_job(job)

    _options = {"queue": "stalled", "queueing_lock": "retry_stalled_jobs", "pass_context": True}
    app.periodic(cron="* * * * * *")(app.task(**_options)(_retry_stalled_jobs))


class _Producer:
    def __init__(self) -> None:
        app.open()

    def publish(self, payload: bytes, count: int) -> None:
        text = payload.decode()
        if count == 1:
            work.defer(text=text)
            return
        for start in range(0, count, 1_000):
            few = min(1_000, count - start)
            work.batch_defer(*({"text": text} for _ in range(few)))

    def close(self) -> None:
        app.close()


class Peer(Framework):
    """An app; the tables are made with the database."""

    def prepare(self) -> None:
        """The queue is a column."""

    def left(self) -> int:
        with psycopg.connect(self.setting.url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM procrastinate_jobs"
                " WHERE queue_name = %s AND status IN ('todo', 'doing')",
                [self.setting.queue],
            ).fetchone()
            assert row is not None
            return int(row[0])

    def open(self) -> Producer:
        return _Producer()

    def command(self) -> list[str]:
        return ["procrastinate", "--log-level", "warning", "--app", f"{__name__}.app", "worker"]
