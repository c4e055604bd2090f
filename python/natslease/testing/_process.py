"""A program that ends when this process ends, however that happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread

from ._errors import ServerFailed, TestingError

# The kernel kills the program when its parent dies. To ask for that takes a system call between
# fork and exec, where a process with threads must not run Python: so a fresh interpreter, which has
# none, asks and then becomes the program. A parent that died before the call was in force is no
# longer the parent.
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class Process:
    """One run of a program that logs to standard error.

    Attributes:
        ready: is set when the log contains the mark, and when the program has ended.
        ended: is set when the program has ended.
    """

    def __init__(self, program: Path, arguments: Sequence[str], mark: str) -> None:
        """Prepares a run; the mark is what the log contains when the program is ready."""
        self.ready = Event()
        self.ended = Event()
        self._program = program
        self._arguments = arguments
        self._mark = mark
        self._lines: list[str] = []
        self._begun = Event()  # it is known whether the program could be started
        self._popen: subprocess.Popen[str] | None = None
        self._problem: OSError | None = None
        self._reaping = Lock()  # while it is held, the program's id is its own

    def start(self) -> None:
        """Starts the program.

        Raises:
            TestingError: it cannot be started.
        """
        # The kernel takes the thread that started a process for its parent: it must live as long as
        # the process.
        Thread(target=self._run, name=f"{self._program.name} log", daemon=True).start()
        self._begun.wait()
        if self._popen is None:
            raise TestingError(f"{self._program} cannot be started: {self._problem}")

    def _run(self) -> None:
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        try:
            popen = subprocess.Popen(
                [*command, str(self._program), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                # A Ctrl-C at the terminal is for the tests, which then end their servers.
                start_new_session=True,
            )
        except OSError as error:
            self._problem = error
            self.ended.set()
        else:
            self._popen = popen
        finally:
            self._begun.set()
        if self._popen is None:
            return
        assert popen.stderr is not None
        with popen.stderr as log:
            for line in log:
                self._lines.append(line)
                if self._mark in line:
                    self.ready.set()
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        with self._reaping:
            popen.wait()
            self.ended.set()
        self.ready.set()

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self._popen is not None
        return self._popen.pid

    @property
    def log(self) -> str:
        """What the program has written to standard error."""
        return "".join(self._lines)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended. A stopped process is running."""
        return not self.ended.is_set()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal.

        Raises:
            TestingError: the process has ended.
        """
        self._begun.wait()
        with self._reaping:
            if self.ended.is_set():
                raise TestingError("the server has ended")
            os.kill(self.pid, number)

    def freeze(self) -> None:
        """Sends SIGSTOP and returns when all threads of the process stand still.

        Raises:
            TestingError: the process has ended, or was started by another process.
        """
        self.send(signal.SIGSTOP)
        # Reported when the last thread has stopped. An end, should there be one, is left to the
        # thread above.
        try:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        except ChildProcessError as error:
            raise TestingError("the server has ended, or was started by another process") from error

    def end(self, number: signal.Signals, timeout: float) -> None:
        """Sends a signal that ends the process, and returns when it has ended.

        Args:
            number: the signal.
            timeout: after so many seconds the process is killed.

        Raises:
            ServerFailed: it could not be killed.
        """
        with suppress(TestingError):
            self.send(number)
        if self.ended.wait(timeout):
            return
        with suppress(TestingError):
            self.send(signal.SIGKILL)
        if not self.ended.wait(timeout):
            raise ServerFailed(f"process {self.pid} does not end", self.log)
