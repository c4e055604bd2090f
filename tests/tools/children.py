"""Forked children and fresh interpreters, and what the server says of their connections."""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from natslease.testing import Server

# Far more than anything here takes: who needs it hangs.
PATIENCE = 60.0
_STRICT = ("-W", "error", "-W", "ignore:.*multi-threaded")


class ChildFailed(AssertionError):
    """A child raised, hung or crashed."""


class Child:
    """A forked child that does some work, and tells what came of it through a pipe."""

    def __init__(self, work: Callable[[], Any]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writing)
            return
        status = 1
        try:
            os.close(self._reading)
            answer = _attempt(work)
            while answer:
                answer = answer[os.write(writing, answer) :]
            status = 0
        finally:
            os._exit(status)

    def result(self, timeout: float = PATIENCE) -> Any:
        """What the work has returned.

        Raises:
            ChildFailed: the work has raised, or did not end.
        """
        deadline = time.monotonic() + timeout
        answer = b""
        try:
            while True:
                left = max(deadline - time.monotonic(), 0)
                if not select.select([self._reading], [], [], left)[0]:
                    os.kill(self.pid, signal.SIGKILL)
                    raise ChildFailed(f"the child hung for {timeout} s")
                if not (chunk := os.read(self._reading, 1 << 16)):
                    break
                answer += chunk
        finally:
            os.close(self._reading)
            _, status = os.waitpid(self.pid, 0)
        if status or not answer:
            raise ChildFailed(f"the child ended with status {status}")
        worked, result = pickle.loads(answer)
        if not worked:
            raise ChildFailed(f"in the child:\n{result}")
        return result


def _attempt(work: Callable[[], Any]) -> bytes:
    try:
        return pickle.dumps((True, work()))
    except BaseException:  # noqa: BLE001 (shown by the parent)
        return pickle.dumps((False, traceback.format_exc()))


def in_child(work: Callable[[], Any]) -> Any:
    """What the work returns in a forked child."""
    return Child(work).result()


def python(
    script: str,
    *arguments: str,
    under: Sequence[str] = (),
    when_ready: Callable[[], None] | None = None,
    timeout: float = PATIENCE,
    **options: Any,
) -> str:
    """Runs a script in a fresh interpreter, maybe under another command.

    ``when_ready`` is called when the script has printed its first line; after it the script gets
    a line to read. Returns the output, and accepts no complaint.
    """
    with subprocess.Popen(
        [*under, sys.executable, *_STRICT, "-c", script, *arguments],
        stdin=None if when_ready is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        try:
            if when_ready is not None:
                assert process.stdout is not None
                if process.stdout.readline():
                    when_ready()
            output: str
            output, complaints = process.communicate(
                None if when_ready is None else "go on\n", timeout
            )
        finally:
            process.kill()
    assert (process.returncode, complaints) == (0, ""), output + complaints
    return output


@contextmanager
def running(script: str, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A script that runs beside the test; its output can be read line by line."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore:.*multi-threaded", "-c", script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """The next line of its output."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def descriptors(pid: int | str = "self") -> dict[int, str]:
    """What the descriptors of a process stand for."""
    if pid == "self":
        gc.collect()  # of an event loop of another test, say
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists the folder
            found[int(entry.name)] = str(entry.readlink())
    return found


def children_of(pid: int) -> set[int]:
    """The processes that a process has started, and that have not ended."""
    return {
        int(c)
        for t in Path(f"/proc/{pid}/task").iterdir()
        for c in (t / "children").read_text().split()
    }


def connections(server: Server) -> dict[int, str]:
    """The server's connections: their names by their ids."""
    page = server.connz(limit=4096)
    return {c["cid"]: c.get("name", "") for c in page["connections"]}


def await_connections(server: Server, n: int) -> dict[int, str]:
    """The connections, when there are n of them."""
    deadline = time.monotonic() + 20
    while len(found := connections(server)) != n:
        assert time.monotonic() < deadline, f"{len(found)} connections, not {n}: {found}"
        time.sleep(0.01)
    return found
