"""The Go examples work as they stand there."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from natslease.testing import Server
from natswire import connected

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "go"
TASKS = [f'{{"id": {number}}}' for number in range(10)]


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of the built examples. Go builds only what has changed."""
    folder = ROOT / "build" / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["go", "build", "-o", f"{folder}{os.sep}", f"./{EXAMPLES.relative_to(ROOT)}/..."],
        cwd=ROOT,
        timeout=110,
        check=True,
    )
    return folder


def run(program: Path, url: str) -> str:
    done = subprocess.run(
        [program],
        env={"NATS_URL": url},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Output:
    """The lines that a program writes, as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._process = process
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip())

    def await_lines(self, expected: set[str]) -> None:
        """Returns when all of these lines have come, among others."""
        while expected:
            expected = expected - {self._lines.get(timeout=20)}


@contextmanager
def running(program: Path, url: str) -> Iterator[Output]:
    """The program, until it is told to end by SIGTERM, which it does without an error."""
    with subprocess.Popen(
        [program], env={"NATS_URL": url}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        output = Output(process)
        try:
            yield output
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
            output.thread.join()


def test_every_example_is_here() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/main.go")} == {
        "publish",
        "reserve",
        "worker",
    }


def test_publish_and_reserve(programs: Path, nats_url: str) -> None:
    assert run(programs / "publish", nats_url) == "accepted 10, duplicates 0, failed 0\n"
    assert run(programs / "publish", nats_url) == "accepted 0, duplicates 10, failed 0\n"
    *lines, last = run(programs / "reserve", nats_url).splitlines()
    assert [line.partition(": ")[2] for line in lines] == TASKS
    assert all("attempt 1" in line for line in lines)
    assert last == "the queue is empty"
    assert run(programs / "reserve", nats_url) == "the queue is empty\n"


@pytest.mark.parametrize("way", ["stop", "kill", "freeze"])
def test_worker_survives(programs: Path, nats_server: Server, way: str) -> None:
    run(programs / "publish", nats_server.url)
    with running(programs / "worker", nats_server.url) as output:
        output.await_lines({f"done {task}" for task in TASKS})
        if way == "freeze":
            with nats_server.frozen():
                # Long enough for its calls to meet silence, and for its session to be given up.
                assert output.thread.is_alive()
                output.thread.join(3)
        else:
            getattr(nats_server, way)()
            nats_server.start()
        with connected(nats_server) as wire:
            for number in range(10, 20):
                assert wire.request("images", {"id": number})["seq"] > 10
        output.await_lines({f'done {{"id": {number}}}' for number in range(10, 20)})
