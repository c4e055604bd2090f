"""Tasks over HTTP: what is asked, and what becomes of answers that make no sense."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from typing import Any

import pytest

import natslease
from natslease.worker import Done, Failed, HTTPSource, Worker
from natslease.worker._api import retry_after
from natslease.worker._backoff import Backoff
from taskserver import TOKEN, TaskServer


def source(server: TaskServer, **options: Any) -> HTTPSource:
    return HTTPSource(server.base, TOKEN, **{"pipelines": ["moths", "bees"], **options})


def work_off(server: TaskServer, handler: Any = None, **options: Any) -> int:
    """A worker that ends when the server has nothing more."""
    worker = Worker(
        source(server),
        handler or (lambda batch: [{"seen": task.payload["image_id"]} for task in batch]),
        **{"batch_size": 8, "until_empty": True, "idle_backoff": 0.5, **options},
    )
    return worker.run()


def test_tasks_of_several_pipelines_come_with_one_poll(server: TaskServer) -> None:
    server.add(5, job=1)
    server.add(5, job=2)
    assert work_off(server, batch_size=64) == 0
    assert server.states() == {"done": 10}
    polls = server.polls()
    assert len(polls) == 2  # and the one that was empty
    assert polls[0]["pipelines"] == ["moths", "bees"]
    assert polls[0]["batch_size"] == 64
    assert server.results(2)[3] == {"seen": "3"}
    assert all(path.endswith("/") for _, path, _ in server.requests)


def test_a_server_as_it_is_today_is_asked_job_by_job() -> None:
    with TaskServer(old=True) as server:
        server.add(5, job=1)
        server.add(5, job=2)
        assert work_off(server) == 0
        assert server.states() == {"done": 10}


def test_each_request_says_who_asks(server: TaskServer) -> None:
    server.add(1)
    work_off(server)
    infos = [body["client_info"] for _, _, body in server.requests]
    assert all(info["hostname"] and info["slot"] == "0" for info in infos)
    assert {info["epoch"] for info in infos[1:]} == {1}


@pytest.mark.parametrize("fault", ["500", "502", "503", "429", "html", "reset", "nonsense"])
def test_what_makes_no_sense_is_asked_again(server: TaskServer, fault: str) -> None:
    server.add(20)
    server.fail(fault, 3, "tasks/")
    server.fail(fault, 3, "result/")
    server.fail(fault, 1, "workers/")
    assert work_off(server) == 0
    assert server.states() == {"done": 20}
    assert all(entry.attempt == 1 for entry in server.tasks[1365].values())


@pytest.mark.parametrize("fault", ["truncated", "lost"])
def test_tasks_whose_answer_is_lost_come_again_when_their_lease_is_over(fault: str) -> None:
    with TaskServer(ack_wait=1.0) as server:
        server.add(20)
        server.fail(fault, 1, "tasks/")
        server.fail(fault, 2, "result/")  # these were stored: posted again they are duplicates
        worker = Worker(
            source(server), lambda b: [task.id for task in b], batch_size=8, idle_backoff=0.3
        )

        def stop_when_done() -> None:
            server.wait_for(done=20)
            worker.stop()

        threading.Thread(target=stop_when_done).start()
        assert worker.run() == 0
        assert server.states() == {"done": 20}


def test_an_empty_answer_is_not_taken_for_an_error_nor_the_reverse(server: TaskServer) -> None:
    server.fail("html", 5, "tasks/")
    began = time.monotonic()
    assert work_off(server) == 0
    assert len(server.polls()) == 6
    assert time.monotonic() - began < 20


def test_retry_after_is_honoured(server: TaskServer) -> None:
    server.add(1)
    server.retry_after = "1"
    server.fail("503", 1, "tasks/")
    assert work_off(server, idle_backoff=0.1) == 0
    polls = [at for at, path, _ in server.requests if path.endswith("/tasks/")]
    assert 1.0 <= polls[1] - polls[0] < 3


def test_retry_after_is_read_in_all_its_forms() -> None:
    assert retry_after("7", {}) == 7.0
    assert retry_after("7", {"retry_after": 1.25}) == 1.25
    assert retry_after(None, {"retry_after": True}) == 0.0
    assert retry_after("nonsense", {}) == 0.0
    assert retry_after("nan", {}) == 0.0
    assert retry_after("-3", {}) == 0.0
    assert retry_after("1000000", {}) == 600.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT", {}) == 0.0


def test_backoff_has_full_jitter_and_a_bound() -> None:
    backoff = Backoff(0.5, 12.0)
    waits = [backoff.next() for _ in range(3000)]
    assert waits[0] <= 0.5
    assert max(waits) <= 12.0
    assert min(waits[10:]) < 1.0
    assert 5.5 < sum(waits[10:]) / len(waits[10:]) < 6.5
    assert backoff.next(100.0) >= 100.0


@pytest.mark.parametrize(("status", "code"), [("401", 6), ("403", 6)])
def test_refused_credentials_end_the_worker(server: TaskServer, status: str, code: int) -> None:
    server.fail(status, 1000)
    assert work_off(server, until_empty=False) == code


def test_a_base_without_its_server_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with TaskServer() as server:
        base = server.base
    gone = HTTPSource(base, TOKEN, timeout=(1, 1))
    with pytest.raises(natslease.Unavailable) as failure:
        gone.reserve(1)
    assert failure.value.outcome == "not_sent"


def test_one_bad_result_costs_the_others_nothing(
    server: TaskServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.add(8)

    def handle(batch: list[Any]) -> list[Any]:
        bad = {"2": float("nan"), "3": object(), "5": "refuse me"}
        return [bad.get(task.id, "good") for task in batch]

    with caplog.at_level(logging.ERROR):
        assert work_off(server, handle) == 0
    good = {n: result for n, result in server.results().items() if result == "good"}
    assert sorted(good) == [0, 1, 4, 6, 7]
    assert "is no JSON" in caplog.text
    assert "refused" in caplog.text


def test_a_failure_for_good_is_posted_as_a_result(server: TaskServer) -> None:
    server.add(2)

    def handle(batch: list[Any]) -> Any:
        yield Failed(batch[1], "no such image", retry=False)
        yield Done(batch[0], 1)

    assert work_off(server, handle) == 0
    assert server.results() == {0: 1, 1: {"error": "no such image", "image_id": "1"}}


def test_the_token_is_in_no_log_and_no_repr(
    server: TaskServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.add(1)
    server.fail("500", 2)
    server.fail("reset", 2)
    with caplog.at_level(logging.DEBUG):
        work_off(server)
    assert TOKEN not in caplog.text + repr(source(server))


def test_a_source_travels_in_pickles(server: TaskServer) -> None:
    server.add(1)
    copy = pickle.loads(pickle.dumps(source(server)))
    copy.open()
    (task,) = copy.reserve(3)
    again = pickle.loads(pickle.dumps(task))
    assert again == task
    assert again.payload["config"] == {"a field": "of later versions"}


def test_wrong_options_are_named() -> None:
    with pytest.raises(natslease.ConfigError, match="base_url"):
        HTTPSource("antenna.example.org")
    with pytest.raises(TypeError, match="pipelines"):
        HTTPSource("http://antenna.example.org", pipelines="moths")
