"""What a subprocess and the feeder say to each other, on a Unix socket that only they can open."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection, Listener

from ...worker import Parent, Task

#: ("take", iteration, (batch, subprocess), n) -> list of tasks, or None at the end
#: ("failed", key, reason) -> nothing
#: ("bye",) -> nothing, after the end; without it the subprocess was killed, or its loader given up
TAKE, FAILED, BYE = "take", "failed", "bye"


def listen() -> tuple[Listener, str]:
    """A socket in a folder of its own, which nobody else can enter."""
    folder = tempfile.mkdtemp(prefix="natslease-")
    if len(folder) > 80:  # a socket's path is 107 bytes at the most
        shutil.rmtree(folder)
        folder = tempfile.mkdtemp(prefix="natslease-", dir="/tmp")
    address = f"{folder}/feeder"
    return Listener(address, "AF_UNIX", backlog=128), folder


def position(times: int) -> tuple[object, int]:
    """Which iteration of a DataLoader this is a subprocess of, and its number.

    The iteration is known by the seed that all of its subprocesses share, and by how often they
    have iterated: persistent ones do so more than once.
    """
    data = sys.modules.get("torch.utils.data")
    info = None if data is None else data.get_worker_info()
    if info is None:
        return None, os.getpid()
    return (info.seed - info.id, times), info.id


class Taker:
    """The subprocess's end."""

    def __init__(self, address: str, times: int) -> None:
        self._connection: Connection = Client(address, "AF_UNIX")
        self._iteration, self._number = position(times)
        self._parent = Parent()
        self._ended = False

    def take(self, batch: int, n: int) -> list[Task] | None:
        """Waits for up to n tasks of a batch, by its number in this subprocess.

        Returns:
            None at the end, and when the feeder is gone.
        """
        try:
            self._connection.send((TAKE, self._iteration, (batch, self._number), n))
            # Siblings that were forked later hold the socket open, too.
            while not self._connection.poll(1.0):
                if not self._parent.is_alive():
                    return None
            tasks: list[Task] | None = self._connection.recv()
        except (EOFError, OSError):
            return None
        self._ended = tasks is None
        return tasks

    def failed(self, task: Task, reason: str) -> None:
        with contextlib.suppress(OSError):
            self._connection.send((FAILED, task.key, reason))

    def close(self) -> None:
        if self._ended:
            with contextlib.suppress(OSError):
                self._connection.send((BYE,))
        self._connection.close()


@contextlib.contextmanager
def taking(address: str, times: int) -> Iterator[Taker | None]:
    """None if the feeder is gone."""
    try:
        taker = Taker(address, times)
    except OSError:
        yield None
        return
    try:
        yield taker
    finally:
        taker.close()
