"""The site under gunicorn, by WSGI and by ASGI: threads and database connections while NATS is
waited for, and during outages."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import natslease
from children import children_of, connections, descriptors
from natslease.testing import Server
from program import PATIENCE, Program

HERE = Path(__file__).parent
THREADS = 8
KINDS = {
    "WSGI": ["--worker-class=gthread", f"--threads={THREADS}", "testsite.wsgi:app"],
    "ASGI": ["--worker-class=uvicorn_worker.UvicornWorker", "testsite.asgi:app"],
}
TASKS = "/api/queues/images/tasks/"
NATS_TIMEOUT = 2.0


class Answer(NamedTuple):
    """An HTTP answer, and how many seconds it took."""

    status: int
    headers: Any
    json: Any
    seconds: float


class Site:
    """The site under a web server with one worker process."""

    def __init__(self, url: str, master: Program, database: Path) -> None:
        self.url = url
        self.master = master
        self.database = str(database)

    def get(self, path: str) -> Answer:
        began = time.monotonic()
        try:
            with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as response:
                body, status, headers = response.read(), response.status, response.headers
        except urllib.error.HTTPError as error:
            with error:
                body, status, headers = error.read(), error.code, error.headers
        return Answer(status, headers, json.loads(body), time.monotonic() - began)

    def held(self) -> int:
        """Database connections: open descriptors of the database's file."""
        (worker,) = children_of(self.master.pid)
        return list(descriptors(worker).values()).count(self.database)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def served(
    kind: str, tmp_path: Path, nats_server: Server
) -> Iterator[tuple[Site, natslease.Queue]]:
    """The site, and its queue."""
    database = tmp_path / "site.sqlite3"
    environment = {
        "DJANGO_SETTINGS_MODULE": "testsite.settings",
        "PYTHONPATH": f"{HERE}:{HERE.parents[1] / 'python'}",
        "SITE_DATABASE": str(database),
        "SITE_NATS_URL": nats_server.url,
        "SITE_HTTP": json.dumps({} if kind == "WSGI" else {"THREADS": THREADS}),
    }
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--verbosity=0"],
        env={**os.environ, **environment},
        check=True,
        timeout=PATIENCE,
    )
    queue = natslease.Client(nats_server.url).queue("images")
    queue.ensure()
    command = ["gunicorn", "--bind=127.0.0.1:0", "--workers=1", "--timeout=60", *KINDS[kind]]
    with Program(*command, env=environment) as master:
        found = re.search(r"Listening at: (http://[\d.:]+)", master.await_output("Booting worker"))
        assert found
        site = Site(found[1], master, database)
        assert site.get("/unrelated/").status == 200
        yield site, queue


def at_once(calls: int, call: Callable[[], Answer]) -> list[Answer]:
    with ThreadPoolExecutor(calls) as threads:
        return [future.result() for future in [threads.submit(call) for _ in range(calls)]]


@pytest.mark.parametrize("state", ["empty", "frozen"])
def test_no_database_connection_is_held_while_nats_is_waited_for(
    served: tuple[Site, natslease.Queue], nats_server: Server, state: str
) -> None:
    site, queue = served
    assert site.get(TASKS).status == 200
    waits = THREADS // 2
    with ThreadPoolExecutor(waits + 1) as threads:
        # This is what holding looks like.
        slow = threads.submit(site.get, "/unrelated/?seconds=1")
        await_that(lambda: site.held() >= 1)
        assert slow.result().status == 200

        # Those that threads keep for CONN_MAX_AGE, also when they have ended.
        before = site.held()
        assert before < waits
        if state == "frozen":
            nats_server.freeze()
        calls = [threads.submit(site.get, f"{TASKS}?wait=3") for _ in range(waits)]
        time.sleep(0.6)  # so that all of them are at it
        assert site.held() <= before
        assert not any(call.done() for call in calls)
        if state == "frozen":
            assert {call.result().status for call in calls} == {503}
            nats_server.thaw()
        else:
            queue.publish([b"x"] * waits)
            assert {call.result().status for call in calls} == {200}
    await_that(lambda: site.get(TASKS).status == 200)
    assert len(connections(nats_server)) == 2  # the site's process, and this one


def test_half_of_the_threads_may_wait(served: tuple[Site, natslease.Queue]) -> None:
    site, _ = served
    answers: list[Answer] = []
    waiting = threading.Thread(
        target=lambda: answers.extend(at_once(THREADS, lambda: site.get(f"{TASKS}?wait=4")))
    )
    waiting.start()
    time.sleep(1)
    unrelated = site.get("/unrelated/")
    assert not answers  # which come all together
    waiting.join()
    assert unrelated.status == 200
    refused = [answer for answer in answers if answer.status == 503]
    assert len(refused) == THREADS // 2
    assert len([answer for answer in answers if answer.status == 200]) == THREADS // 2
    for answer in refused:
        assert answer.json["code"] == "busy"
        assert answer.headers["Retry-After"] == "1"
        assert answer.seconds < 3  # it has not waited


def test_tasks_for_who_has_hung_up_are_there_for_others(
    served: tuple[Site, natslease.Queue],
) -> None:
    site, queue = served
    host, port = site.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as impatient:
        impatient.sendall(f"GET {TASKS}?wait=3 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await_that(lambda: queue.info().num_waiting > 0)
    queue.publish([b"x"])
    (lease,) = queue.reserve(1, wait=10)
    assert lease.data == b"x"


@pytest.mark.parametrize("fault", ["frozen", "killed"])
def test_an_outage_is_answered_503_and_the_rest_of_the_site_does_not_notice(
    served: tuple[Site, natslease.Queue], nats_server: Server, fault: str
) -> None:
    site, queue = served
    assert site.get(TASKS).status == 200
    stop = threading.Event()
    polled: list[Answer] = []

    def poll() -> None:
        while not stop.is_set():
            polled.append(site.get(f"{TASKS}?wait=0.5&batch=5"))
            stop.wait(0.05)

    pollers = [threading.Thread(target=poll) for _ in range(16)]
    nats_server.freeze() if fault == "frozen" else nats_server.kill()
    unrelated = []
    try:
        for poller in pollers:
            poller.start()
        # Three failed connections open the circuit breaker.
        while not any(answer.json["code"] == "circuit_open" for answer in polled):
            unrelated.append(site.get("/unrelated/"))
            stop.wait(0.05)
        before = len(polled)
        stop.wait(1)
        unrelated.append(site.get("/unrelated/"))
    finally:
        stop.set()
        for poller in pollers:
            poller.join()
        nats_server.thaw() if fault == "frozen" else nats_server.start()
    assert {answer.status for answer in unrelated} == {200}
    assert {answer.status for answer in polled} == {503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in polled)
    assert max(answer.seconds for answer in polled) < NATS_TIMEOUT + 0.5 + 2
    while_open = sorted(a.seconds for a in polled[before:] if a.json["code"] == "circuit_open")
    assert while_open[len(while_open) // 2] < 0.1

    queue.publish([b"x"])
    await_that(lambda: site.get(TASKS).status == 200)


def await_that(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
