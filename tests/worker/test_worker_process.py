"""Workers as processes: how they end, and that nothing is lost by it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import natslease
from natslease import Message
from natslease.testing import Proxy, Server
from natslease.worker import ExitCode
from program import await_that
from taskserver import TaskServer
from workerprocess import Workers
from workprogram import QUEUE

TASKS = 1_000


@pytest.fixture
def queue(nats_server: Server) -> Iterator[natslease.Queue]:
    with natslease.Client(nats_server.url, timeout=10) as client:
        queue = client.queue("tasks", **QUEUE)  # type: ignore[arg-type]
        queue.ensure()
        yield queue


def publish(queue: natslease.Queue, n: int) -> None:
    report = queue.publish([Message(b"%d" % i, id=str(i)) for i in range(n)])
    assert len(report.accepted) == n


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


def test_sigterm_drains(server: TaskServer, tmp_path: Path) -> None:
    server.add(50)
    workers = Workers(tmp_path, base=server.base, pause=0.05, worker={"batch_size": 10})
    with workers.start() as worker:
        server.wait_for(done=12)
        assert worker.end() == ExitCode.DONE
    states = server.states()
    # Batches are finished, the rest was never taken.
    assert states["done"] % 10 == 0
    assert states["done"] < 50
    assert states["pending"] == 50 - states["done"]
    assert workers.done() == {str(n): 1 for n in server.results()}


def test_a_second_sigterm_releases_everything_at_once(server: TaskServer, tmp_path: Path) -> None:
    server.add(50)
    workers = Workers(tmp_path, base=server.base, handler="stuck", worker={"batch_size": 10})
    with workers.start() as worker:
        worker.await_output("stuck")
        worker.send(signal.SIGTERM)
        worker.await_output("drains")
        began = time.monotonic()
        assert worker.end() == ExitCode.RELEASED
        assert time.monotonic() - began < 5
    assert server.states() == {"done": 1, "pending": 49}


def test_the_grace_has_an_end(server: TaskServer, tmp_path: Path) -> None:
    server.add(50)
    options = {"batch_size": 10, "grace": 1.0}
    workers = Workers(tmp_path, base=server.base, handler="stuck", worker=options)
    with workers.start() as worker:
        worker.await_output("stuck")
        began = time.monotonic()
        assert worker.end() == ExitCode.RELEASED
        assert 1.0 <= time.monotonic() - began < 6
    assert server.states() == {"done": 1, "pending": 49}


def test_a_worker_that_nothing_gets_out_of_its_handler_ends_all_the_same(
    server: TaskServer, tmp_path: Path
) -> None:
    server.add(50)
    workers = Workers(tmp_path, base=server.base, handler="hangs", worker={"batch_size": 5})
    with workers.start() as worker:
        worker.await_output("hangs")
        worker.send(signal.SIGTERM)
        worker.await_output("drains")
        assert worker.end() == ExitCode.RELEASED
    assert server.states() == {"done": 11, "pending": 39}


def test_a_hung_handler_is_noticed_and_the_next_worker_does_its_tasks(
    server: TaskServer, tmp_path: Path
) -> None:
    server.add(50)
    options = {"batch_size": 5, "heartbeat_timeout": 1.0, "until_empty": True}
    workers = Workers(tmp_path, base=server.base, handler="hangs", worker=options)
    with workers.start() as worker:
        assert worker.wait() == ExitCode.HUNG
        assert "no sign of life" in worker.output
    assert server.states() == {"done": 11, "pending": 39}
    with workers.start() as worker:
        assert worker.wait() == ExitCode.DONE
    assert server.states() == {"done": 50}


@pytest.mark.parametrize("handler", ["raises", "too_few", "some_fail"])
@pytest.mark.parametrize("over", ["http", "nats"])
def test_what_fails_is_tried_again_by_itself_and_nothing_dies(
    over: str, handler: str, server: TaskServer, queue: natslease.Queue, tmp_path: Path
) -> None:
    n = 60
    if over == "http":
        server.add(n)
        where = {"base": server.base}
    else:
        publish(queue, n)
        where = {"url": queue._client._options["servers"][0]}
    options = {"batch_size": 20, "wait": 1.0, "until_empty": True}
    workers = Workers(tmp_path, handler=handler, worker=options, **where)
    with workers.start() as worker:
        assert worker.wait() == ExitCode.DONE
        assert worker.output.count("ERROR task") or "failed" in worker.output
    assert workers.done() == {str(i): 1 for i in range(n)}
    if over == "http":
        assert server.states() == {"done": n}
    else:
        assert queue.info().messages == 0
        assert queue.dead_letters() == []


def test_leases_are_kept_while_the_interpreter_is_held(
    queue: natslease.Queue, tmp_path: Path
) -> None:
    publish(queue, 20)
    options = {"batch_size": 20, "wait": 1.0, "until_empty": True}
    workers = Workers(
        tmp_path,
        url=queue._client._options["servers"][0],
        handler="hogs",
        pause=2.5 * QUEUE["ack_wait"],  # type: ignore[operator]
        worker=options,
    )
    with workers.start() as worker:
        worker.await_output("hogs")
        while "let go" not in worker.output:
            assert queue.reserve(20, wait=0.5) == []
        assert worker.wait() == ExitCode.DONE
    assert workers.done() == {str(i): 1 for i in range(20)}
    assert queue.info().messages == 0


def test_a_newer_worker_fences_an_older_one(server: TaskServer, tmp_path: Path) -> None:
    server.add(40)
    workers = Workers(tmp_path, base=server.base, worker={"batch_size": 10, "wait": 0.1})
    with workers.start(handler="stuck") as old:
        old.await_output("stuck")
        with workers.start(pause=0.01) as new:
            new.await_output("reserved")
            given = server.given[str(old.pid)]
            assert old.wait() == ExitCode.FENCED
            server.wait_for(done=31)
            assert server.given[str(old.pid)] == given == 10
            # It was told by a 409, so its release was refused too: no attempt but time is lost.
            assert new.end() == ExitCode.DONE


def test_other_slots_and_hosts_are_left_alone(server: TaskServer, tmp_path: Path) -> None:
    server.add(40)
    workers = Workers(tmp_path, base=server.base, handler="stuck", worker={"batch_size": 10})
    others = [{"slot": "1"}, {"hostname": "elsewhere"}, {"service": "another"}]
    with workers.start() as first:
        first.await_output("stuck")
        for other in others:
            with workers.start(source=other) as second:
                second.await_output("stuck")
                server.wait_for_requests(1, "heartbeat")
                assert "superseded" not in first.output
        first.send(signal.SIGTERM)
        first.await_output("drains")
        assert first.end() == ExitCode.RELEASED


def test_results_wait_out_an_outage(server: TaskServer, tmp_path: Path) -> None:
    server.add(30)
    workers = Workers(tmp_path, base=server.base, pause=0.01, worker={"batch_size": 10})
    with workers.start() as worker:
        server.wait_for(done=10)
        with server.away():
            worker.await_output("not delivered yet")
            worker.send(signal.SIGTERM)
            worker.await_output("drains")
        assert worker.wait() == ExitCode.DONE
    assert set(map(str, server.results())) == set(workers.done())
    assert server.states()["leased"] == 0


def test_results_that_cannot_be_delivered_are_told_by_the_exit_code(
    server: TaskServer, tmp_path: Path
) -> None:
    server.add(10)
    options = {"batch_size": 10, "grace": 2.0}
    workers = Workers(tmp_path, base=server.base, worker=options)
    server.fail("500", 1_000, "result/")
    with workers.start() as worker:
        worker.await_output("not delivered yet")
        assert worker.end() == ExitCode.UNDELIVERED
        assert "results not delivered: 0, 1" in worker.output
    assert server.states() == {"pending": 10}  # for somebody else


@pytest.mark.parametrize("start_method", ["spawn", "fork", "forkserver"])
def test_slots_end_when_what_started_them_is_killed(
    start_method: str, server: TaskServer, tmp_path: Path
) -> None:
    server.add(40)
    workers = Workers(
        tmp_path,
        base=server.base,
        handler="stuck",
        slots=2,
        start_method=start_method,
        worker={"batch_size": 10},
    )
    with workers.start() as parent:
        output = parent.await_output("stuck", 2)
        pids = [int(pid) for pid in re.findall(r"working (\d+)", output)]
        assert len(pids) == 2
        os.kill(parent.pid, signal.SIGKILL)
        await_that(lambda: not any(map(is_alive, pids)), 20)
        parent.wait()  # nobody has its output any more
    assert server.states()["leased"] == 0


def test_slots_that_crash_are_started_again(server: TaskServer, tmp_path: Path) -> None:
    server.add(60)
    workers = Workers(
        tmp_path,
        base=server.base,
        pause=0.02,
        slots=1,
        start_method="spawn",
        worker={"batch_size": 5, "until_empty": False},
    )
    with workers.start() as parent:
        output = parent.await_output("working ")
        server.wait_for(done=5)
        first = int(output.split("working ")[1].split()[0])
        os.kill(first, signal.SIGKILL)
        parent.await_output("working ", 2)
        server.wait_for(done=55)
        assert parent.end() == 0


def test_five_restarts_in_a_thousand_tasks(queue: natslease.Queue, tmp_path: Path) -> None:
    """Restarts of all kinds, one of them a kill -9: with two attempts for each task."""
    publish(queue, TASKS)
    url = queue._client._options["servers"][0]
    options = {"batch_size": 40, "wait": 1.0, "grace": 10.0}
    workers = Workers(tmp_path, url=url, pause=0.004, worker=options)
    codes = []
    for i, ends in enumerate(["drain", "kill", "twice", "drain", "twice"]):
        with workers.start() as worker:
            before = sum(workers.done().values())
            await_that(lambda: sum(workers.done().values()) >= before + 60)  # noqa: B023
            if ends == "kill":
                worker.send(signal.SIGKILL)
            else:
                worker.send(signal.SIGTERM)
            if ends == "twice":
                worker.await_output("drains")
                with suppress(ProcessLookupError):
                    worker.send(signal.SIGTERM)
            codes.append(worker.wait())
            assert i < 5
    assert codes[1] == -signal.SIGKILL
    assert {*codes[:1], *codes[2:]} <= {ExitCode.DONE, ExitCode.RELEASED}
    with workers.start(worker={**options, "wait": 4.0, "until_empty": True}) as worker:
        assert worker.wait() == ExitCode.DONE
    done = workers.done()
    assert set(done) == {str(i) for i in range(TASKS)}  # nothing is lost, nothing acked undone
    assert queue.info().messages == 0
    assert queue.dead_letters() == []
    again = sum(done.values()) - TASKS
    # Only what was in hand or not settled yet when it was killed, or interrupted.
    assert again <= 40 + 2


def test_the_network_is_gone_for_a_while(nats_server: Server, tmp_path: Path) -> None:
    outage = float(os.environ.get("NATSLEASE_OUTAGE", "5"))
    # A pull that waits at the server when the network goes may be given a task of which the lease,
    # which is short here, runs out meanwhile: that is an attempt more.
    with Proxy(nats_server.url) as proxy, natslease.Client(nats_server.url) as client:
        queue = client.queue("tasks", **{**QUEUE, "max_deliver": 3})  # type: ignore[arg-type]
        queue.ensure()
        publish(queue, 300)
        workers = Workers(tmp_path, url=proxy.url, pause=0.005, worker={"batch_size": 20})
        with workers.start() as worker:
            await_that(lambda: len(workers.done()) >= 60)
            proxy.stall()
            time.sleep(outage)  # that long it is gone
            proxy.restore()
            await_that(lambda: queue.info().messages == 0)
            assert worker.end() == ExitCode.DONE
        assert set(workers.done()) == {str(i) for i in range(300)}
        assert queue.dead_letters() == []


def test_an_idle_worker_asks_seldom(server: TaskServer, tmp_path: Path) -> None:
    seconds = 15.0
    workers = Workers(tmp_path, base=server.base, worker={"idle_backoff": 12.0})
    # Long enough for the backoff to have settled, with its mean as it is at worst.
    with workers.start() as worker:
        server.wait_for_requests(4, "tasks/")
        before = len(server.requests)
        time.sleep(seconds)
        asked = sum("heartbeat" not in path for _, path, _ in server.requests[before:])
        assert worker.end() == ExitCode.DONE
    assert asked <= seconds / 5 + 3


def test_an_idle_worker_of_a_queue_asks_seldom_and_starts_at_once(
    queue: natslease.Queue, nats_server: Server, tmp_path: Path
) -> None:
    workers = Workers(tmp_path, url=nats_server.url, worker={"idle_backoff": 12.0})
    with workers.start() as worker:
        await_that(lambda: queue.info().num_waiting > 0)
        time.sleep(8)
        (cid,) = [
            c for c in nats_server.connz()["connections"] if str(worker.pid) in c.get("name", "")
        ]
        publish(queue, 1)
        began = time.monotonic()
        await_that(lambda: len(workers.done()) == 1)
        assert time.monotonic() - began < 1.0
        assert worker.end() == ExitCode.DONE
    # Its connection, the queue's facts, then a pull every 5 s.
    assert cid["in_msgs"] <= 9, cid
