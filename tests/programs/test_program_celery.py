"""Celery's prefork pool, whose parent has used the queue before it forks."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import celery
import pytest

from celery_config import FOLDERS
from children import children_of
from natslease.testing import Server
from program import PATIENCE, Program
from work import Done, check_account, pids, processes_of, reports

HERE = Path(__file__).parent
TOOLS = HERE.parent / "tools"
CHILDREN = 4
TASKS_PER_CHILD = 6


def run_tasks(n: int) -> list[Done]:
    app = celery.Celery("programs")
    app.config_from_object("celery_config")
    results = [app.send_task("work") for _ in range(n)]
    return [result.get(timeout=PATIENCE, interval=0.05) for result in results]


def test_celery_prefork(
    nats_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in FOLDERS:
        Path(folder).mkdir()
    worker = Program(
        "celery",
        "--app=celery_app",
        "worker",
        f"--concurrency={CHILDREN}",
        f"--max-tasks-per-child={TASKS_PER_CHILD}",
        "--loglevel=INFO",
        env={
            "NATS_URL": nats_server.url,
            "PYTHONPATH": os.pathsep.join([str(HERE), str(TOOLS)]),
        },
    )
    with worker:
        worker.await_output("ready.")
        before = processes_of(nats_server)
        assert set(before) == {worker.pid}

        done = run_tasks(10 * CHILDREN)
        # Each child was replaced, so that some have not worked yet.
        deadline = time.monotonic() + PATIENCE
        while set(processes_of(nats_server)) != (all_of_them := worker_and_children(worker)):
            done += run_tasks(CHILDREN)
            assert time.monotonic() < deadline, processes_of(nats_server)
        assert len(all_of_them) == 1 + CHILDREN
        assert processes_of(nats_server)[worker.pid] == before[worker.pid]
        assert len(pids(done)) > CHILDREN
        assert max(Counter(one["pid"] for one in done).values()) == TASKS_PER_CHILD

        assert worker.end() == 0
        its_own = reports(worker.output)
        assert [one["pid"] for one in its_own] == [worker.pid] * 2, worker.output
        check_account(nats_server, done + its_own)


def worker_and_children(worker: Program) -> set[int]:
    return {worker.pid, *children_of(worker.pid)}
