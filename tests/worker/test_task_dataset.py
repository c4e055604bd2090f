"""One feeder for all subprocesses of a loader: how often it asks, how much it holds, how it ends.

With TORCH_PYTHON set the loader is torch's DataLoader, in that Python; else one that works alike.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from children import python
from natslease.contrib.torch import TaskDataset
from natslease.contrib.torch._bound import Bound
from natslease.worker import ExitCode, HTTPSource
from program import Program, await_that
from taskserver import TOKEN, TaskServer

TOOLS = Path(__file__).parents[1] / "tools"
PACKAGE = Path(__file__).parents[2] / "python"
TORCH = os.environ.get("TORCH_PYTHON")


@pytest.fixture
def start(server: TaskServer, tmp_path: Path) -> Callable[..., Program]:
    def start(**options: Any) -> Program:
        told = {
            "base": server.base,
            "batch_size": 4,
            "num_workers": 4,
            "loader": "torch" if TORCH else "standin",
            **options,
        }
        paths = os.pathsep.join(map(str, (PACKAGE, TOOLS)))
        return Program(
            TORCH or sys.executable,
            TOOLS / "datasetprogram.py",
            json.dumps(told),
            cwd=tmp_path,
            env={"PYTHONPATH": paths},
        )

    return start


def children_of(pid: int) -> list[int]:
    with suppress(OSError):
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in listed]
    return []


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def pids_of(output: str) -> set[str]:
    return set(re.findall(r"working (\d+)", output))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_one_feeder_reserves_for_all_subprocesses(
    method: str, server: TaskServer, start: Callable[..., Program]
) -> None:
    server.add(200)
    with start(method=method) as worker:
        assert worker.wait() == ExitCode.DONE
        assert "DONE" in worker.output
    assert server.states() == {"done": 200}
    assert set(server.polled) == pids_of(worker.output)  # nobody else has asked
    assert len(server.polls()) < 30
    assert server.results() == {n: str(n) for n in range(200)}


def test_it_is_iterated_without_subprocesses(
    server: TaskServer, start: Callable[..., Program]
) -> None:
    server.add(50)
    with start(num_workers=0) as worker:
        assert worker.wait() == ExitCode.DONE
    assert server.states() == {"done": 50}


def test_the_incident(server: TaskServer, start: Callable[..., Program]) -> None:
    """2 slots of 16 subprocesses, 20 tasks, and a worker that was left from an earlier run."""
    with start(num_workers=16, dataset={"until_empty": False}) as stale:
        await_that(lambda: len(server.polls()) >= 3)
        server.gate.clear()
        await_that(lambda: len(children_of(stale.pid)) == 16)
        with start(num_workers=16, slots=2) as new:
            await_that(lambda: server.registered == 3)
            began = len(server.polls())
            server.add(20)
            server.gate.set()
            assert new.wait() == ExitCode.DONE
        assert stale.wait() == ExitCode.FENCED
    assert server.states() == {"done": 20}
    assert len(pids_of(new.output)) == 2
    assert set(server.given) <= pids_of(new.output)  # the stale one got none
    assert len(server.polls()) - began <= 10
    assert set(server.polled) <= pids_of(new.output) | pids_of(stale.output)


def test_what_is_held_follows_the_speed(start: Callable[..., Program], server: TaskServer) -> None:
    server.ack_wait = 4.0
    server.add(160)
    with start(pause=0.05) as worker:  # 20 a second: 40 in half a lease
        server.wait_for(done=60)
        most = 0
        while (states := server.states())["done"] < 140:
            most = max(most, states["leased"])
            time.sleep(0.05)
        assert worker.wait() == ExitCode.DONE
    assert most <= 60
    assert max(server.held_for) < server.ack_wait
    assert all(entry.attempt == 1 for entry in server.tasks[1365].values())


def test_what_waits_is_extended(start: Callable[..., Program], server: TaskServer) -> None:
    """One batch takes longer than a lease lasts."""
    server.ack_wait = 1.5
    server.add(12)
    with start(pause=0.6, num_workers=2) as worker:
        assert worker.wait() == ExitCode.DONE
    assert server.states() == {"done": 12}
    assert all(entry.attempt == 1 for entry in server.tasks[1365].values())
    assert any(path.endswith("/extend/") for _, path, _ in server.requests)


def test_the_bound_follows_what_is_measured() -> None:
    bound = Bound(16, 100, 0.5)
    assert bound.limit(300.0) == 16
    bound.begin()
    time.sleep(0.2)
    bound.finished(10, held=5)
    assert 20 < bound.speed < 51
    assert bound.limit(2.0) == int(bound.speed)
    assert bound.limit(300.0) == 100
    assert bound.limit(0.001) == 1
    before = bound.speed
    bound.finished(0, held=0)
    time.sleep(0.2)  # idle: does not count
    bound.begin()
    assert bound.speed == pytest.approx(before, rel=0.1)


def test_a_killed_subprocess_loses_nothing(
    server: TaskServer, start: Callable[..., Program]
) -> None:
    server.add(120)
    with start(pause=0.01) as worker:
        server.wait_for(done=10)
        victim = children_of(worker.pid)[1]
        os.kill(victim, signal.SIGKILL)
        worker.await_output("a subprocess was killed")
        assert worker.wait() == ExitCode.DONE
    assert server.states() == {"done": 120}
    assert all(entry.attempt == 1 for entry in server.tasks[1365].values())


def test_a_killed_feeder_leaves_no_subprocess_and_its_tasks_come_again(
    server: TaskServer, start: Callable[..., Program]
) -> None:
    server.ack_wait = 2.0
    server.add(80)
    with start(pause=0.02) as worker:
        server.wait_for(done=10)
        subprocesses = children_of(worker.pid)
        assert len(subprocesses) >= 4
        worker.send(signal.SIGKILL)
        await_that(lambda: not any(map(is_alive, subprocesses)), 20)
        worker.wait()
    await_that(lambda: server.states()["leased"] == 0)
    with start() as worker:
        assert worker.wait() == ExitCode.DONE
    assert server.states() == {"done": 80}


def test_when_the_feeders_parent_is_killed_everything_is_given_back(
    server: TaskServer, start: Callable[..., Program]
) -> None:
    server.add(400)
    with start(pause=0.05, slots=2) as parent:
        server.wait_for(done=10)
        workers = [int(pid) for pid in pids_of(parent.output)]
        below = [child for pid in workers for child in children_of(pid)]
        assert len(workers) == 2
        parent.send(signal.SIGKILL)
        await_that(lambda: not any(map(is_alive, [*workers, *below])), 30)
        parent.wait()
    states = server.states()
    assert states["leased"] == 0
    assert states["dead"] == 0
    assert all(entry.attempt <= 1 for entry in server.tasks[1365].values())


def test_sigterm_ends_the_iteration_and_what_is_in_flight_is_finished(
    server: TaskServer, start: Callable[..., Program]
) -> None:
    server.add(400)
    with start(pause=0.01) as worker:
        server.wait_for(done=20)
        assert worker.end() == ExitCode.DONE
    states = server.states()
    assert states["leased"] == 0
    assert 20 <= states["done"] < 400
    assert states["pending"] == 400 - states["done"]


def test_a_second_sigterm_gives_everything_back(
    server: TaskServer, start: Callable[..., Program]
) -> None:
    server.add(400)
    with start(pause=2.0) as worker:
        server.wait_for(leased=8)
        worker.send(signal.SIGTERM)
        worker.await_output("drains")
        began = time.monotonic()
        assert worker.end() == ExitCode.RELEASED
        assert time.monotonic() - began < 10
    assert server.states()["leased"] == 0


def test_it_runs_for_ever_if_told_so(server: TaskServer, start: Callable[..., Program]) -> None:
    server.add(10)
    with start(dataset={"until_empty": False, "batches": True}) as worker:
        server.wait_for(done=10)
        server.add(1)
        server.wait_for(done=11)
        server.add(10)
        server.wait_for(done=21)
        worker.send(signal.SIGTERM)
        assert worker.wait() == ExitCode.DONE
    assert server.states()["leased"] == 0


def test_a_task_that_cannot_be_loaded_is_tried_again(
    server: TaskServer, start: Callable[..., Program], tmp_path: Path
) -> None:
    (tmp_path / "unlucky").touch()
    server.add(40)
    with start() as worker:
        assert worker.wait() == ExitCode.DONE
    assert server.states() == {"done": 40}
    assert server.tasks[1365][13].attempt == 2
    assert "the image is not there today" in worker.output


@pytest.mark.parametrize("fault", ["500", "html", "reset", "nonsense"])
def test_an_outage_is_not_taken_for_the_end(
    fault: str, server: TaskServer, start: Callable[..., Program]
) -> None:
    server.add(40)
    server.fail(fault, 4, "tasks/")
    server.fail(fault, 4, "result/")
    with start(num_workers=2) as worker:
        assert worker.wait() == ExitCode.DONE
    assert server.states() == {"done": 40}


def test_there_need_not_be_a_torch() -> None:
    script = """
import sys
sys.modules["torch"] = None  # cannot be imported
from natslease.contrib.torch import TaskDataset
assert TaskDataset.__bases__ == (object,)
print("fine")
"""
    assert python(script) == "fine\n"


def test_subprocesses_get_no_credentials(server: TaskServer) -> None:
    dataset = TaskDataset(HTTPSource(server.base, TOKEN))
    with dataset:
        assert TOKEN.encode() not in pickle.dumps(dataset)


def test_only_its_process_may_settle(server: TaskServer) -> None:
    with TaskDataset(HTTPSource(server.base, TOKEN)) as dataset:
        copy = pickle.loads(pickle.dumps(dataset))
        with pytest.raises(RuntimeError, match="process that made it"):
            copy.done("x")
    with pytest.raises(RuntimeError, match="with block"):
        iter(TaskDataset(HTTPSource(server.base, TOKEN)))
