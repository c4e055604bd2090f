"""The site under gunicorn, by WSGI and by ASGI: threads and database connections while NATS is
waited for. Outages under load are in test_outage.py."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import natslease
from children import connections
from natslease.testing import Server
from program import PATIENCE, await_that
from webserver import KINDS, TASKS, THREADS, Answer, Site, serving


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def served(
    kind: str, tmp_path: Path, nats_server: Server
) -> Iterator[tuple[Site, natslease.Queue]]:
    """The site, and its queue."""
    queue = natslease.Client(nats_server.url).queue("images")
    queue.ensure()
    with serving(kind, tmp_path, nats_server.url) as site:
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
