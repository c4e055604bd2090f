"""The ADC's example against the example of Antenna: gunicorn, Celery, and a worker for two GPUs.

With TORCH_PYTHON set the worker is run by that Python, with torch's DataLoader.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from natslease.testing import Server
from program import Program

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PYTHON = os.environ.get("TORCH_PYTHON", sys.executable)
IMAGES = 60

# It starts a database, gunicorn, Celery, and processes for two GPUs.
pytestmark = pytest.mark.timeout(240)


class Antenna:
    """The running site."""

    def __init__(self, site: Any) -> None:
        self.site = site
        self.token = site.prepare(images=IMAGES, job=1)["token"]
        site.serve()
        site.work()

    def ask(self, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.site.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Token {self.token}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def await_status(self, status: str) -> None:
        until = time.monotonic() + 60
        while (job := self.ask("/jobs/1/"))["status"] != status:
            assert time.monotonic() < until, (job, self.site.log("celery.log")[-3000:])
            time.sleep(0.1)


@pytest.fixture
def antenna(
    nats_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Antenna]:
    monkeypatch.syspath_prepend(EXAMPLES / "antenna")
    services = importlib.import_module("replay.services")
    with services.Site(
        tmp_path, nats_server.url, DJANGO_SETTINGS_MODULE="antenna.settings"
    ) as site:
        yield Antenna(site)


@pytest.fixture
def adc(antenna: Antenna) -> Callable[..., Program]:
    def start(*options: str) -> Program:
        return Program(
            PYTHON,
            EXAMPLES / "adc" / "worker.py",
            antenna.site.url,
            antenna.token,
            *("--pipelines", "moths", "--batch", "8", "--loaders", "2"),
            *options,
            env={"PYTHONPATH": str(ROOT / "python")},
        )

    return start


def test_a_job_is_worked_off_by_two_gpus(antenna: Antenna, adc: Callable[..., Program]) -> None:
    antenna.ask("/jobs/1/run/", {})
    antenna.await_status("STARTED")
    with adc("--gpus", "2", "--until-empty") as worker:
        assert worker.wait() == 0, worker.output
        assert worker.output.count("registered, epoch") == 2, worker.output
        assert "Traceback" not in worker.output
    antenna.await_status("SUCCESS")
    stages = antenna.ask("/jobs/1/")["progress"]["stages"]
    results = next(stage for stage in stages if stage["key"] == "results")
    assert results["results"] == IMAGES


def test_a_worker_that_was_left_behind_is_fenced(
    antenna: Antenna, adc: Callable[..., Program]
) -> None:
    with adc() as stale:
        stale.await_output("registered, epoch")
        with adc() as new:
            new.await_output("registered, epoch")
            antenna.ask("/jobs/1/run/", {})
            antenna.await_status("SUCCESS")
            assert stale.wait() == 3
            assert "reserved" not in stale.output
            assert new.end(signal.SIGTERM) == 0, new.output
