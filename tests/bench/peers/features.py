"""What each peer has, and where that is written: its own documentation or source."""

from __future__ import annotations

from typing import NamedTuple

GITHUB = "https://github.com"
NATS_PY = f"{GITHUB}/nats-io/nats.py/blob/main"
NATSRPY = f"{GITHUB}/taskiq-python/natsrpy/blob/master/python/natsrpy/_natsrpy_rs"
TASKIQ = f"{GITHUB}/taskiq-python/taskiq/blob/master"
TASKIQ_NATS = f"{GITHUB}/taskiq-python/taskiq-nats/blob/master"
CELERY = "https://docs.celeryq.dev/en/stable"
KOMBU = f"{GITHUB}/celery/kombu/blob/main/kombu/transport/redis.py"
RQ = "https://python-rq.org/docs"
RQ_SOURCE = f"{GITHUB}/rq/rq/blob/master"
DJANGO_RQ = f"{GITHUB}/rq/django-rq"
PROCRASTINATE = "https://procrastinate.readthedocs.io/en/stable"
PYPI = "https://pypi.org/project"


class Cell(NamedTuple):
    """What a peer has of a feature, in a few words, and where that is written."""

    text: str
    source: str


PEERS = (
    "natslease",
    "nats-py",
    "natsrpy",
    "nats-jetstream",
    "taskiq-nats",
    "Celery",
    "RQ",
    "procrastinate",
)


def _row(*cells: tuple[str, str]) -> dict[str, Cell]:
    return {peer: Cell(*cell) for peer, cell in zip(PEERS, cells, strict=True)}


_JS_CLIENT = f"{NATS_PY}/nats/src/nats/js/client.py"
_JS_MESSAGE = f"{NATS_PY}/nats/src/nats/aio/msg.py"
_NEW_README = f"{NATS_PY}/nats-jetstream/README.md"
_NEW_MOVING = f"{NATS_PY}/nats-jetstream/MIGRATION.md"
_NEW_MESSAGE = f"{NATS_PY}/nats-jetstream/src/nats/jetstream/message.py"
_RPY_CLIENT = f"{NATSRPY}/__init__.pyi"
_RPY_STREAM = f"{NATSRPY}/js/__init__.pyi"
_BROKER = f"{TASKIQ_NATS}/taskiq_nats/broker.py"
_STALLED = f"{PROCRASTINATE}/howto/production/retry_stalled_jobs.html"

FEATURES: dict[str, dict[str, Cell]] = {
    "called by synchronous code": _row(
        ("yes", "../tutorial/first-queue.md"),
        ("no: coroutines", f"{NATS_PY}/README.md"),
        ("no: awaitables", _RPY_CLIENT),
        ("no: coroutines", _NEW_README),
        ("no: `await task.kiq()`", f"{TASKIQ}/docs/guide/getting-started.md"),
        ("yes", f"{CELERY}/userguide/calling.html"),
        ("yes", f"{RQ}/"),
        ("enqueueing, not the worker", f"{PROCRASTINATE}/howto/advanced/sync_defer.html"),
    ),
    "called by coroutines": _row(
        ("yes", "../howto/asyncio.md"),
        ("yes", f"{NATS_PY}/README.md"),
        ("yes", _RPY_CLIENT),
        ("yes", _NEW_README),
        ("yes", f"{TASKIQ}/docs/guide/getting-started.md"),
        ("no, not in 5.7", f"{GITHUB}/celery/celery/issues/6552"),
        ("no", f"{RQ}/"),
        ("yes", f"{PROCRASTINATE}/howto/basics/defer.html"),
    ),
    "a call's time is limited": _row(
        ("every call's", "../reference/faults.md"),
        ("not connecting's by default", f"{GITHUB}/nats-io/nats.py/issues/645"),
        ("by the client's options", _RPY_CLIENT),
        ("not connecting's", f"{NATS_PY}/nats-core/src/nats/client/__init__.py"),
        ("as nats-py's", _BROKER),
        ("not by default", KOMBU),
        ("by redis-py's options", f"{GITHUB}/redis/redis-py/blob/master/redis/_defaults.py"),
        ("connecting's, not a query's", "https://www.psycopg.org/psycopg3/docs/api/pool.html"),
    ),
    "circuit breaker": _row(
        ("yes", "../../README.md"),
        ("no", f"{NATS_PY}/nats/src/nats/aio/client.py"),
        ("no", _RPY_CLIENT),
        ("no", _NEW_README),
        ("no", _BROKER),
        ("no", f"{CELERY}/userguide/configuration.html"),
        ("no", f"{RQ}/connections/"),
        ("no", f"{PROCRASTINATE}/howto/basics/connector.html"),
    ),
    "enqueueing is confirmed": _row(
        ("always", "acked.md"),
        ("`js.publish`", _JS_CLIENT),
        ("`wait=True`", _RPY_STREAM),
        ("always", _NEW_MOVING),
        ("always", _BROKER),
        ("by Redis's answer", KOMBU),
        ("by Redis's answer", f"{RQ_SOURCE}/rq/queue.py"),
        ("by the commit", f"{PROCRASTINATE}/howto/production/external_connection.html"),
    ),
    "the ack is confirmed": _row(
        ("always", "acked.md"),
        ("`ack_sync`, one by one", _JS_MESSAGE),
        ("`ack(double=True)`, one by one", _RPY_STREAM),
        ("`double_ack`, one by one", _NEW_MESSAGE),
        ("no: `message.ack`", _BROKER),
        ("by Redis's answer", KOMBU),
        ("by Redis's answer", f"{RQ_SOURCE}/rq/worker/base.py"),
        (
            "by the commit",
            f"{GITHUB}/procrastinate-org/procrastinate/blob/main/procrastinate/manager.py",
        ),
    ),
    "many in one call": _row(
        ("enqueue, take, ack", "../tutorial/first-queue.md"),
        ("take; `publish_async`", _JS_CLIENT),
        ("take", f"{NATSRPY}/js/consumers.pyi"),
        ("take", _NEW_MOVING),
        ("take", _BROKER),
        ("no (celery-batches)", f"{PYPI}/celery-batches/"),
        ("`enqueue_many`", f"{RQ}/"),
        ("`batch_defer`", f"{PROCRASTINATE}/howto/basics/batch_defer.html"),
    ),
    "a long task keeps its lease": _row(
        ("by itself, also in C code", "../howto/adc.md"),
        ("`in_progress`, by hand", _JS_MESSAGE),
        ("`progress`, by hand", _RPY_STREAM),
        ("`in_progress`, by hand", _NEW_MESSAGE),
        ("no", _BROKER),
        ("no: visibility timeout", f"{CELERY}/getting-started/backends-and-brokers/redis.html"),
        ("by the worker's heartbeats", f"{RQ_SOURCE}/rq/worker/base.py"),
        ("by heartbeats", _STALLED),
    ),
    "dead letters": _row(
        ("listed, enqueued again", "delivery.md"),
        ("no", _JS_CLIENT),
        ("no", _RPY_STREAM),
        ("no", _NEW_README),
        ("no", _BROKER),
        ("no: a failed result", f"{CELERY}/userguide/tasks.html"),
        ("FailedJobRegistry", f"{RQ}/exceptions/"),
        ("failed jobs stay", f"{PROCRASTINATE}/howto/advanced/retry_failed.html"),
    ),
    "who has which task": _row(
        ("yes, and had", "../howto/fleet.md"),
        ("no", _JS_CLIENT),
        ("no", _RPY_STREAM),
        ("no", _NEW_README),
        ("taskiq-admin, by middleware", f"{TASKIQ}/docs/available-components/middlewares.md"),
        ("`inspect`, events, Flower", f"{CELERY}/userguide/monitoring.html"),
        ("workers, their job", f"{RQ}/monitoring/"),
        ("a column of the job", _STALLED),
    ),
    "Django": _row(
        ("views, staff page, checks", "../howto/django.md"),
        ("no", f"{NATS_PY}/README.md"),
        ("no", f"{GITHUB}/taskiq-python/natsrpy"),
        ("no", _NEW_README),
        ("taskiq-django, under ASGI", f"{PYPI}/taskiq-django/"),
        ("yes", f"{CELERY}/django/first-steps-with-django.html"),
        ("django-rq, with admin", DJANGO_RQ),
        ("models, admin, migrations", f"{PROCRASTINATE}/howto/django/configuration.html"),
    ),
    "enqueued in the transaction": _row(
        ("no", "../howto/django.md"),
        ("no", _JS_CLIENT),
        ("no", _RPY_STREAM),
        ("no", _NEW_README),
        ("no", _BROKER),
        ("after it: `delay_on_commit`", f"{CELERY}/django/first-steps-with-django.html"),
        ("after it: django-rq", f"{DJANGO_RQ}#commit-modes"),
        ("yes", f"{PROCRASTINATE}/howto/production/external_connection.html"),
    ),
    "results, schedules, retries": _row(
        ("delayed nak", "delivery.md"),
        ("delayed nak", _JS_MESSAGE),
        ("delayed nak", _RPY_STREAM),
        ("delayed nak", _NEW_MESSAGE),
        ("all", f"{TASKIQ}/docs/available-components/README.md"),
        ("all, and workflows", f"{CELERY}/userguide/canvas.html"),
        ("all", f"{RQ}/scheduling/"),
        ("retries, schedules", f"{PROCRASTINATE}/howto/advanced/retry.html"),
    ),
    "runs on": _row(
        ("Linux with glibc, CPython", "../../README.md"),
        ("all of Python", f"{PYPI}/nats-py/"),
        ("wheels, or Rust", f"{PYPI}/natsrpy/"),
        ("Python 3.13 (nats-core)", f"{PYPI}/nats-core/"),
        ("all of Python", f"{PYPI}/taskiq-nats/"),
        ("Unix; Windows unsupported", f"{CELERY}/faq.html#windows"),
        ("where there is fork, or SpawnWorker", f"{RQ}/workers/"),
        ("all of Python", f"{PYPI}/procrastinate/"),
    ),
    "calls itself": _row(
        ("alpha", "../../README.md"),
        ("(says nothing)", f"{PYPI}/nats-py/"),
        ("alpha", f"{PYPI}/natsrpy/"),
        ("beta", f"{PYPI}/nats-jetstream/"),
        ("alpha", f"{PYPI}/taskiq-nats/"),
        ("production/stable", f"{PYPI}/celery/"),
        ("production/stable", f"{PYPI}/rq/"),
        ("production/stable", f"{PYPI}/procrastinate/"),
    ),
}
