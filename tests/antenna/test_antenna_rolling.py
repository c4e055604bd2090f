"""Signed leases are rolled out, and rolled back, with old and new processes side by side: web
processes in each step of docs/howto/django.md, workers, and Celery's workers."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

import natslease
from children import children_of
from natslease.testing import Server
from program import await_that
from replay.services import SITE, Site, end

HERE = Path(__file__).parent
STEPS_PAGE = HERE.parents[1] / "docs" / "howto" / "django.md"
PATIENCE = 60.0
JOB = 1
WORKERS = ("before", "after")


def steps() -> list[dict[str, Any]]:
    """The setting ``NATSLEASE_HTTP`` in each step, as the page tells it."""
    rows = re.findall(r"^\| [^|]+ \| `(\[.*?\])` \| `(\".*?\")` \|$", STEPS_PAGE.read_text(), re.M)
    return [{"ACCEPT_LEASES": json.loads(a), "EMIT_LEASES": json.loads(e)} for a, e in rows]


STEPS = {str(i): step for i, step in enumerate(steps())}


@contextmanager
def quickly_ended(site: Site) -> Iterator[Site]:
    """A site whose processes are killed in the end: an orderly one takes Celery seconds, with a
    broker in the file system."""
    with site:
        try:
            yield site
        finally:
            for process in filter(None, [site.web, *site.others]):
                children = children_of(process.pid)
                end(process, signal.SIGKILL)
                for pid in children:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


class Rolling:
    """A web process in each step, on one database, broker and NATS server."""

    def __init__(self, folder: Path, nats_url: str) -> None:
        self._folder = folder
        self._nats_url = nats_url
        self._database = folder / "antenna.sqlite3"
        self.webs: dict[str, str] = {}
        self.token = ""

    def _site(self, step: str, code: str) -> Site:
        return Site(
            self._folder,
            self._nats_url,
            DJANGO_SETTINGS_MODULE="rollingsite.settings",
            PYTHONPATH=f"{SITE}:{HERE}:{HERE.parents[1] / 'python'}",
            ANTENNA_WEB_PROCESSES="1",
            ROLLING_HTTP=json.dumps(STEPS[step]),
            ROLLING_CODE=code,
        )

    def start(self, stack: ExitStack, images: int) -> None:
        # The code of before has never heard of signed leases.
        sites = {s: self._site(s, "before" if s == "0" else "after") for s in STEPS}
        made = sites["0"].prepare(images=images, job=JOB, status="STARTED")
        self.token = made["token"]
        for site in sites.values():
            stack.enter_context(quickly_ended(site))
        with ThreadPoolExecutor() as threads:
            list(threads.map(Site.serve, sites.values()))
        self.webs = {step: site.url for step, site in sites.items()}

    @contextmanager
    def celery(self, step: str, code: str) -> Iterator[Site]:
        """Celery's processes, of that step."""
        with quickly_ended(self._site(step, code)) as site:
            site.work(1)
            yield site

    def work(self, kind: str) -> list[dict[str, Any]]:
        """What has become of the tasks that a worker has taken from one and given to another, for
        each two of the web processes."""
        told = {"kind": kind, "webs": self.webs, "token": self.token, "job": JOB}
        done = subprocess.run(
            [sys.executable, HERE / "rollingworker.py", json.dumps(told)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def saved(self) -> Counter[str]:
        """How often a result of each image was saved."""
        with sqlite3.connect(self._database, timeout=PATIENCE) as database:
            rows = database.execute("SELECT image_id FROM main_detection").fetchall()
        database.close()
        return Counter(str(row[0]) for row in rows)


@pytest.fixture
def queue(nats_server: Server) -> natslease.Queue:
    client = natslease.Client(nats_server.url)
    queue = client.queue(
        f"job_{JOB}", subject=f"job.{JOB}.tasks", consumer=f"job-{JOB}-consumer", ack_wait=300
    )
    queue.ensure()
    return queue


@pytest.fixture
def rolling(tmp_path: Path, nats_server: Server, queue: natslease.Queue) -> Iterator[Rolling]:
    tasks = len(WORKERS) * len(STEPS) ** 2 * 2
    with ExitStack() as stack:
        made = Rolling(tmp_path, nats_server.url)
        made.start(stack, images=tasks + 1)  # with one left the job does not end
        report = queue.publish(
            json.dumps({"id": str(n), "image_id": str(n), "image_url": "https://x"}).encode()
            for n in range(1, tasks + 1)
        )
        assert len(report.accepted) == tasks
        yield made


def test_a_rolling_deploy_and_its_rollback(rolling: Rolling, queue: natslease.Queue) -> None:
    assert [list(step.values()) for step in STEPS.values()] == [
        [["raw"], "raw"],
        [["raw", "signed"], "raw"],
        [["raw", "signed"], "signed"],
        [["signed"], "signed"],
    ]
    became: list[dict[str, Any]] = []
    # Celery's processes are asked by all web processes, those of before and those of after.
    for step, code in (("0", "before"), ("3", "after")):
        with rolling.celery(step, code) as celery:
            for kind in WORKERS:
                became += rolling.work(kind)
            expected = {b["image_id"] for b in became if b["status"] == "queued"}
            await_that(
                lambda: set(rolling.saved()) >= expected,  # noqa: B023 (it is called in here)
                what=lambda: (rolling.saved(), celery.log("celery.log")[-3000:]),
            )
            refused = [b for b in became if b["status"] != "queued"]
            await_that(
                lambda: queue.info().num_ack_pending == len(refused),  # noqa: B023
                what=queue.info,
            )
            assert "Traceback" not in celery.log("celery.log")

    for b in became:
        form = "raw" if b["reply_subject"].startswith("$JS.ACK.") else "signed"
        assert form == STEPS[b["emits"]]["EMIT_LEASES"], b
        understood = form in STEPS[b["accepts"]]["ACCEPT_LEASES"]
        assert b["status"] == ("queued" if understood else "invalid"), b
        # One step at a time, forwards or back, is understood.
        if abs(int(b["emits"]) - int(b["accepts"])) <= 1:
            assert understood, b
    # Steps cannot be left out.
    assert {(b["emits"], b["accepts"]) for b in refused} >= {("2", "0"), ("0", "3")}

    # What was refused is still leased, and its result still welcome where it is understood.
    results = [
        {"reply_subject": b["reply_subject"], "result": {"image_id": b["image_id"]}}
        for b in refused
    ]
    answer = requests.post(
        f"{rolling.webs['2']}/jobs/result/",
        json={"results": results},
        headers={"Authorization": f"Token {rolling.token}"},
        timeout=PATIENCE,
    )
    assert {item["status"] for item in answer.json()["tasks"]} == {"queued"}
    with rolling.celery("3", "after"):
        await_that(lambda: queue.info().num_ack_pending == 0, what=queue.info)
    assert rolling.saved() == Counter(b["image_id"] for b in became)
