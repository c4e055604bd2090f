"""The example as it is run: gunicorn with uvicorn workers, Celery prefork, and a worker.

Those with PostgreSQL and Redis need these on PATH, and say what is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import debian
import natslease
from natslease.testing import Server
from replay.services import SITE, Postgres, Site, end, free_port

PATIENCE = 60.0


class Web:
    """The running site, for the holder of its token."""

    def __init__(self, site: Any, made: dict[str, Any]) -> None:
        self.site = site
        self.made = made

    def ask(self, path: str, body: Any = None, timeout: float = PATIENCE) -> tuple[int, Any, Any]:
        """Status, JSON and headers."""
        request = urllib.request.Request(
            f"{self.site.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            method="GET" if body is None else "POST",
            headers={
                "Authorization": f"Token {self.made['token']}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, json.loads(answer.read() or b"null"), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null"), error.headers

    def await_status(self, job: int, status: str) -> dict[str, Any]:
        """The job, when it has that status."""
        until = time.monotonic() + PATIENCE
        while True:
            _, found, _ = self.ask(f"/jobs/{job}/")
            if found["status"] == status:
                fields: dict[str, Any] = found
                return fields
            assert time.monotonic() < until, (found, self.site.log("celery.log")[-3000:])
            time.sleep(0.1)

    def worker(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "puller.py", self.site.url, self.made["token"], *options]
        return subprocess.run(
            command, cwd=SITE, capture_output=True, text=True, timeout=PATIENCE, check=False
        )


@pytest.fixture
def start(nats_server: Server) -> Iterator[Callable[..., Web]]:
    """Starts the site with an environment."""
    with ExitStack() as stack:

        def run(*, celery: bool = True, **environment: str) -> Web:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="antenna-")))
            environment = {"DJANGO_SETTINGS_MODULE": "antenna.settings", **environment}
            site = stack.enter_context(Site(folder, nats_server.url, **environment))
            web = Web(site, site.prepare(images=40, job=1))
            site.serve()
            if celery:
                site.work()
            return web

        yield run


def work_off_a_job(web: Web, server: Server) -> None:
    """A job is run to its end by a worker, with the server frozen for a while."""
    status, job, _ = web.ask("/jobs/1/run/", {})
    assert (status, job["status"]) == (202, "PENDING")
    web.await_status(1, "STARTED")
    server.freeze()
    status, body, headers = web.ask("/jobs/1/tasks/", {"batch_size": 4})
    assert (status, body["error"]) == (503, "Task queue temporarily unavailable")
    assert int(headers["Retry-After"]) >= 1
    assert web.ask("/ml/pipelines/")[0] == 200
    server.thaw()
    done = web.worker("--batch", "16", "--pipelines", "moths", "--until-empty")
    assert done.returncode == 0, done.stderr
    found = web.await_status(1, "SUCCESS")
    results = next(s for s in found["progress"]["stages"] if s["key"] == "results")
    assert results["results"] == results["total"] == 40
    # The last result takes the queue away.
    until = time.monotonic() + PATIENCE
    while streams(server):
        assert time.monotonic() < until
        time.sleep(0.1)
    # A retried job has nothing left to do; its images have results.
    assert web.ask("/jobs/1/retry/", {})[0] == 202
    web.await_status(1, "SUCCESS")


def streams(server: Server) -> list[str]:
    details = server.jsz(streams=True).get("account_details") or [{"stream_detail": []}]
    names = [stream["name"] for stream in details[0]["stream_detail"]]
    return [name for name in names if name.startswith("job_") and name[4:].isdigit()]


def test_a_job_from_its_making_to_its_end(start: Callable[..., Web], nats_server: Server) -> None:
    web = start()
    work_off_a_job(web, nats_server)
    # Processes with a connection: web, Celery's workers, at most one of each.
    assert nats_server.varz()["connections"] <= 2 + 3


def test_the_same_with_preload(start: Callable[..., Web], nats_server: Server) -> None:
    web = start(ANTENNA_PRELOAD="1")
    work_off_a_job(web, nats_server)


def test_the_same_with_postgres(start: Callable[..., Web], nats_server: Server) -> None:
    missing = [name for name in ("initdb", "postgres") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not on PATH: apt-get install postgresql")
    with Postgres() as postgres:
        work_off_a_job(start(ANTENNA_DATABASE_URL=postgres.url), nats_server)


def test_the_filter_and_the_reaper_with_postgres() -> None:
    missing = [name for name in ("initdb", "postgres") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not on PATH: apt-get install postgresql")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        str(Path(__file__).with_name("test_antenna_jobs.py")),
    ]
    # conftest.py sets it, when the example can be imported.
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    with Postgres() as postgres:
        done = subprocess.run(
            command,
            env={**environment, "ANTENNA_DATABASE_URL": postgres.url},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_the_same_with_redis(start: Callable[..., Web], nats_server: Server) -> None:
    server = debian.program_or_skip("redis-server", "redis-server")
    port = free_port()
    redis = subprocess.Popen(
        [server.path, "--port", str(port), "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
        env=server.environment,
    )
    try:
        work_off_a_job(start(ANTENNA_BROKER_URL=f"redis://127.0.0.1:{port}/0"), nats_server)
    finally:
        end(redis)


def test_views_that_wait_hold_no_database_connection(
    start: Callable[..., Web], nats_server: Server
) -> None:
    missing = [name for name in ("initdb", "postgres") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not on PATH: apt-get install postgresql")
    import psycopg

    with Postgres() as postgres:
        web = start(celery=False, ANTENNA_DATABASE_URL=postgres.url)
        web.site.seed(images=1, job=2, status="STARTED")
        client = natslease.Client(nats_server.url)
        client.queue("job_2", subject="job.2.tasks", consumer="job-2-consumer").ensure()
        client.close()
        body = {"batch_size": 1, "wait": 4}
        with ThreadPoolExecutor(16) as pool, psycopg.connect(postgres.url, autocommit=True) as db:
            answers = [pool.submit(web.ask, "/jobs/2/tasks/", body) for _ in range(16)]
            held = []
            until = time.monotonic() + 20
            while not all(answer.done() for answer in answers):
                assert time.monotonic() < until
                row = db.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                    " AND pid <> pg_backend_pid()"
                ).fetchone()
                assert row is not None
                held.append(row[0])
                time.sleep(0.02)
        assert {answer.result()[0] for answer in answers} == {200}
        # At first they look at their jobs; in the end they answer. Meanwhile nothing is held.
        assert sorted(held)[len(held) // 2] == 0, held
        assert held.count(0) > 25, held


def test_what_a_client_asked_for_that_has_left_is_given_back(
    start: Callable[..., Web], nats_server: Server
) -> None:
    web = start(celery=False)
    web.site.seed(images=1, job=2, status="STARTED")
    with natslease.Client(nats_server.url) as client:
        queue = client.queue("job_2", subject="job.2.tasks", consumer="job-2-consumer")
        queue.ensure()
        with pytest.raises(TimeoutError):
            web.ask("/jobs/2/tasks/", {"batch_size": 1, "wait": 5}, timeout=1.0)
        queue.publish([b'{"id": "1"}'])
        # The view that waits gets it, finds that nobody is there, and gives it back.
        until = time.monotonic() + 10
        while not (tasks := web.ask("/jobs/2/tasks/", {"batch_size": 1, "wait": 1})[1]["tasks"]):
            assert time.monotonic() < until, queue.info()
        assert tasks[0]["id"] == "1"


def test_cancelling_takes_the_queue_away(start: Callable[..., Web], nats_server: Server) -> None:
    web = start()
    web.ask("/jobs/1/run/", {})
    web.await_status(1, "STARTED")
    assert streams(nats_server) == ["job_1"]
    assert web.ask("/jobs/1/cancel/", {})[0] == 202
    web.await_status(1, "REVOKED")
    assert streams(nats_server) == []
    assert web.ask("/jobs/1/tasks/", {"batch_size": 1})[1] == {"tasks": []}
    # Retried, it queues its images anew.
    assert web.ask("/jobs/1/retry/", {})[0] == 202
    web.await_status(1, "STARTED")
    _, body, _ = web.ask("/jobs/1/tasks/", {"batch_size": 100})
    assert len(body["tasks"]) == 40


def test_a_job_is_made_over_http(start: Callable[..., Web]) -> None:
    web = start(celery=False)
    fields = {"project": web.made["project"], "pipeline": "moths", "name": "n"}
    status, job, _ = web.ask("/jobs/", {**fields, "limit": 5})
    assert (status, job["dispatch_mode"], job["status"]) == (201, "async_api", "CREATED")
    status, job, _ = web.ask("/jobs/", {**fields, "dispatch_mode": "internal"})
    assert (status, job["dispatch_mode"]) == (201, "internal")
    assert web.ask("/jobs/", {**fields, "dispatch_mode": "magic"})[0] == 400
    assert web.ask("/jobs/", {**fields, "pipeline": "unknown"})[0] == 400
    assert web.ask("/jobs/", {**fields, "project": 999})[0] == 400
    body = {
        "processing_service_name": "adc (gpu-9)",
        "pipelines": [{"slug": "moths", "name": "Moths", "version": 2}, {"slug": "ants"}],
        "client_info": {"hostname": "gpu-9"},
    }
    for created in (["ants"], []):
        status, answer, _ = web.ask(f"/projects/{web.made['project']}/pipelines/", body)
        assert status == 200
        assert answer["pipelines_created"] == created
        assert answer["processing_service_id"]
    assert web.ask("/projects/999/pipelines/", body)[0] == 404
    _, found, _ = web.ask("/ml/processing_services/")
    seen = {s["name"]: s["status"] for s in found["results"]}
    assert seen == {"adc (example)": "offline", "adc (gpu-9)": "online"}


def test_without_a_token_nothing_is_served(start: Callable[..., Web]) -> None:
    web = start(celery=False)
    web.made = {**web.made, "token": "wrong"}
    for path in ("/jobs/1/tasks/", "/jobs/tasks/", "/jobs/1/result/"):
        assert web.ask(path, {"batch_size": 1, "results": []})[0] == 401
