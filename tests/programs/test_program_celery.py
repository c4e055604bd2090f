"""Celery's prefork pool, whose parent has used the queue before it forks."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import celery
import pytest

from celery_config import FOLDERS, deliver
from children import children_of
from natslease.testing import Server
from program import PATIENCE, Program
from work import await_processes, check_account, pids, processes_of, reports

HERE = Path(__file__).parent
TOOLS = HERE.parent / "tools"
CHILDREN = 4
TASKS_PER_CHILD = 6


def test_celery_prefork(
    nats_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in FOLDERS:
        Path(folder).mkdir()
    app = celery.Celery("programs")
    app.config_from_object("celery_config")
    sent = 0
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

    def run_tasks(n: int) -> None:
        nonlocal sent
        sent += n
        for _ in range(n):
            app.send_task("work")
        deliver()
        worker.await_output("task: ", sent)

    with worker:
        worker.await_output("ready.")
        before = await_processes(nats_server, {worker.pid})
        run_tasks(10 * CHILDREN)
        # Each child was replaced, so that some have not worked yet.
        deadline = time.monotonic() + PATIENCE
        while set(processes_of(nats_server)) != (now := worker_and_children(worker)):
            assert time.monotonic() < deadline, processes_of(nats_server)
            run_tasks(CHILDREN)
        assert len(now) == 1 + CHILDREN
        assert before.items() <= processes_of(nats_server).items()

        assert worker.end() == 0
        assert [one["pid"] for one in reports(worker.output, "imported")] == [worker.pid]
        assert [one["pid"] for one in reports(worker.output, "shutdown")] == [worker.pid]
        of_children = reports(worker.output, "task")
        assert len(of_children) == sent
        assert len(pids(of_children)) > CHILDREN
        assert max(Counter(one["pid"] for one in of_children).values()) == TASKS_PER_CHILD
        check_account(nats_server, reports(worker.output))


def worker_and_children(worker: Program) -> set[int]:
    return {worker.pid, *children_of(worker.pid)}
