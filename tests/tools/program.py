"""A program that runs beside a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType

# Far more than anything here takes: who needs it hangs.
PATIENCE = 60.0
BINARIES = Path(sys.executable).parent


def await_that(
    holds: Callable[[], bool],
    patience: float = PATIENCE,
    what: Callable[[], object] | None = None,
) -> None:
    """Returns when it is so; else fails, saying what there is instead."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, what and what()
        time.sleep(0.02)


class ProgramFailed(AssertionError):
    """A program has not done what was awaited of it; the text ends with its output."""


class Program:
    """A program, found beside this interpreter or on PATH: its output as it comes, and its end.

    What is left of it at the end of the ``with`` block is killed, its children as well.
    """

    def __init__(
        self,
        *command: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stderr: bool = True,
    ) -> None:
        """Starts the program.

        Args:
            cwd: its working directory.
            env: variables that it has besides the test's own.
            stderr: whether what it writes there is part of its output, and else that of the test.
        """
        self._command = " ".join(map(str, command))
        self._output = ""
        self._ended = False
        self._changed = Condition()
        path = os.pathsep.join([str(BINARIES), os.environ.get("PATH", os.defpath)])
        self._popen = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if stderr else None,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = Thread(target=self._read, name=f"output of {self._command}")
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as output:
            for line in output:
                with self._changed:
                    self._output += line
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._reader.join()

    @property
    def pid(self) -> int:
        """The id of its process, and of its process group."""
        return self._popen.pid

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._output

    def await_output(self, text: str, times: int = 1) -> str:
        """Returns the output when this has been written, and so often.

        Raises:
            ProgramFailed: the output has ended, or it took too long.
        """
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while self._output.count(text) < times:
                left = deadline - time.monotonic()
                if self._ended or left <= 0 or not self._changed.wait(left):
                    raise self._failed(f"has not written {text!r} {times} times")
            return self._output

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process; not to its children."""
        self._popen.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal, and returns the process's status when it has ended.

        Raises:
            ProgramFailed: it does not end.
        """
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        """Returns the process's status when it has ended; then all of its output is known.

        Raises:
            ProgramFailed: it does not end.
        """
        try:
            status = self._popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise self._failed("does not end") from None
        # Its children may have the pipe, too.
        self._reader.join(PATIENCE)
        if self._reader.is_alive():
            raise self._failed("has ended, but its children have not")
        return status

    def _failed(self, why: str) -> ProgramFailed:
        return ProgramFailed(f"{self._command} {why}; its output:\n{self._output}")
