"""Celery: settling after saving, in this process and in a real prefork pool."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import Retry

import natslease
from children import connections
from natslease.contrib.celery import settle, settle_inbox
from natslease.contrib.django import LeaseRef
from natslease.testing import Server
from program import PATIENCE, Program, await_that

HERE = Path(__file__).parent
CHILDREN = 3


@pytest.fixture
def taken(images: natslease.Queue) -> list[dict[str, str]]:
    """Leases, as they travel in messages."""
    images.publish([b"0", b"1", b"2"])
    return [LeaseRef.of(lease).to_dict() for lease in images.reserve(3, wait=5)]


def test_settled_and_gone_are_the_end_of_it(
    images: natslease.Queue, taken: list[dict[str, str]]
) -> None:
    assert settle(taken[:2]) == {"settled": 2}
    assert images.info().messages == 1
    assert settle(taken) == {"settled": 3}  # again: harmless
    images.delete()
    assert settle(taken) == {"gone": 3}
    assert settle([]) == {}


def test_a_queue_that_was_made_anew_has_other_tasks_of_the_same_numbers(
    images: natslease.Queue, taken: list[dict[str, str]]
) -> None:
    # As if the queue had been deleted and made anew a minute after these were published.
    published = str(LeaseRef.from_dict(taken[0]).published)
    before = str(int(published) - 60 * 1_000_000_000)
    old = {**taken[0], "ack_subject": taken[0]["ack_subject"].replace(published, before)}
    assert settle([old, taken[1]]) == {"gone": 1, "settled": 1}
    assert images.info().num_ack_pending == 2


def test_what_is_no_lease_is_not_tried_again(
    site: Any, taken: list[dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    bad = {**taken[0], "ack_subject": "$JS.API.STREAM.PURGE.images"}
    foreign = {**taken[0], "stream": "other", "consumer": "other"}
    worse = {**taken[0], "stream": "a b"}
    assert settle([bad, taken[1], foreign, worse]) == {"settled": 1, "invalid": 3}
    assert caplog.text.count("is not acknowledged") == 3


def test_what_is_unknown_is_tried_again_and_only_that(
    images: natslease.Queue,
    taken: list[dict[str, str]],
    nats_server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retries: list[dict[str, Any]] = []

    def retry(**options: Any) -> Retry:
        retries.append(options)
        return Retry()

    monkeypatch.setattr(settle, "retry", retry)
    other = {**taken[0], "ack_subject": "$JS.API.STREAM.PURGE.images"}
    with nats_server.frozen(), pytest.raises(Retry):
        settle([other, *taken[:2]], timeout=0.3)
    (options,) = retries
    assert options["args"] == (taken[:2],)
    assert 1 <= options["countdown"] <= 1.5
    nats_server.kill()
    for done in (1, 5, 30):
        with pytest.raises(Retry):
            settle_as_try(done, taken)
        wait = min(2**done, 300)
        assert wait <= retries[-1]["countdown"] <= wait * 1.5
    assert settle_as_try(49, taken) == {"unknown": 3}


def settle_as_try(done: int, leases: list[dict[str, str]]) -> Any:
    """Runs it as Celery does after so many tries."""
    task: Any = settle
    task.push_request(retries=done)
    try:
        return task.run(leases, timeout=0.3)
    finally:
        task.pop_request()


@pytest.mark.django_db(transaction=True)
def test_the_inbox(site: Any, nats_server: Server) -> None:
    assert settle_inbox() == {"pruned": 0}


def test_without_django(nats_server: Server) -> None:
    """The client comes from the environment."""
    script = """
import sys, natslease
from natslease.contrib.celery import settle
queue = natslease.Client.from_env().queue("images")
queue.ensure()
queue.publish([b"x"])
(lease,) = queue.reserve(1, wait=5)
assert settle([{"alias": "default", "stream": "images", "consumer": "images",
                "ack_subject": lease.ack_subject}]) == {"settled": 1}
assert "natslease.contrib.django" not in sys.modules
"""
    environment = {**os.environ, "NATS_URL": nats_server.url}
    del environment["DJANGO_SETTINGS_MODULE"]
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=PATIENCE)


class Messages(threading.Thread):
    """Moves what was sent to where the worker looks, when it is whole: kombu's file-system broker
    reads messages that are still being written."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.written, self.messages = folder / "written", folder / "messages"
        for made in (self.written, self.messages, folder / "control"):
            made.mkdir()
        self.stop = threading.Event()

    def run(self) -> None:
        seen: dict[Path, int] = {}
        while not self.stop.wait(0.02):
            for message in self.written.iterdir():
                size = message.stat().st_size
                if size and seen.get(message) == size:
                    message.rename(self.messages / message.name)
                seen[message] = size


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Path]:
    messages = Messages(tmp_path)
    messages.start()
    yield tmp_path
    messages.stop.set()
    messages.join()


_SEND = """
import json, sys, django
django.setup()
from testsite.celery import app
for name, arguments in json.load(sys.stdin):
    app.send_task(name, arguments)
"""


def test_a_prefork_pool(nats_server: Server, broker: Path) -> None:
    """Results are saved during an outage, and acknowledged when it is over. There is no signal
    handler in the site, and the pool's parent has used the queue before it forks."""
    database = broker / "site.sqlite3"
    environment = {
        "DJANGO_SETTINGS_MODULE": "testsite.settings",
        "PYTHONPATH": f"{HERE}:{HERE.parents[1] / 'python'}",
        "SITE_BROKER": str(broker),
        "SITE_DATABASE": str(database),
        "SITE_NATS_URL": nats_server.url,
    }
    everything = {**os.environ, **environment}
    django = [sys.executable, "-m", "django"]
    subprocess.run([*django, "migrate", "--verbosity=0"], env=everything, check=True)

    def send(*tasks: tuple[str, list[Any]]) -> None:
        subprocess.run(
            [sys.executable, "-c", _SEND],
            env=everything,
            input=json.dumps(tasks),
            text=True,
            check=True,
            timeout=PATIENCE,
        )

    def count(query: str) -> int:
        with sqlite3.connect(database, timeout=PATIENCE) as connection:
            found: int = connection.execute(query).fetchone()[0]
        connection.close()
        return found

    queue = natslease.Client(nats_server.url).queue("images", ack_wait=300)
    queue.ensure()
    queue.publish([b"%d" % i for i in range(40)])
    refs = [LeaseRef.of(lease).to_dict() for lease in queue.reserve(40, wait=5)]
    worker = Program(
        "celery",
        "--app=testsite",
        "worker",
        f"--concurrency={CHILDREN}",
        "--loglevel=INFO",
        env={**environment, "SITE_PING": "1"},
    )
    saving = "testsite.tasks.save_result"
    with worker:
        worker.await_output("ready.")
        send(*[(saving, [ref, "first"]) for ref in refs[:20]])
        await_that(lambda: queue.info().messages == 20)
        # This process, the parent, which has pinged, and those children that had something to do.
        assert 3 <= len(connections(nats_server)) <= 2 + CHILDREN

        nats_server.stop()
        # Every result comes twice.
        send(*[(saving, [ref, text]) for ref in refs[20:35] for text in ("first", "second")])
        send(("natslease.settle", [refs[35:], 0.5]))
        await_that(lambda: count("SELECT COUNT(*) FROM natslease_inboxentry") == 35)
        worker.await_output("natslease.settle", 2)
        worker.await_output("Retry in")
        nats_server.start()
        # settle goes on by itself; the inbox waits for beat.
        await_that(lambda: queue.info().messages <= 15)
        with sqlite3.connect(database, timeout=PATIENCE) as connection:
            connection.execute("UPDATE natslease_inboxentry SET saved_at = '2026-01-01 00:00:00'")
        connection.close()

        def settled() -> bool:
            send(("natslease.settle_inbox", []))
            return count("SELECT COUNT(*) FROM natslease_inboxentry WHERE settled_at IS NULL") == 0

        await_that(settled)
        assert count("SELECT COUNT(*) FROM testsite_result") == 35
        assert queue.info().messages == 0
        assert worker.end() == 0
        assert "Traceback" not in worker.output.replace("Retry", "")
