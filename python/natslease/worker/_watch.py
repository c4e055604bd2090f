"""Signals, and the parent's death, noticed also while the main thread is busy."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

log = logging.getLogger("natslease.worker")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_TICK = 0.25
_PARENT_EVERY = 4  # ticks


class Parent:
    """The process that has started this one by multiprocessing, if one has."""

    def __init__(self) -> None:
        self._process = multiprocessing.parent_process()
        #: Readable when it is gone; late, where siblings that were forked later hold its other end.
        self.sentinel = None if self._process is None else self._process.sentinel
        # With forkserver another process is the system's parent.
        self._pid = os.getppid()
        self._is_systems = self._process is not None and self._process.pid == self._pid

    def is_alive(self) -> bool:
        """True where there is none."""
        if self._process is None:
            return True
        if self._is_systems and os.getppid() != self._pid:
            return False
        return self._process.is_alive()


class Watch:
    """A thread of its own that is told of signals through a socket: the main thread may be in a
    call that does not return, and Python's own handlers wait for that.
    """

    def __init__(
        self,
        *,
        signalled: Callable[[int], None],
        orphaned: Callable[[], None],
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            signalled: is called with each SIGTERM or SIGINT's number.
            orphaned: is called once the process that has started this one by multiprocessing is
                gone.
            tick: is called several times a second.
        """
        self._signalled = signalled
        self._orphaned = orphaned
        self._tick = tick
        self._ended = False
        self._restore: list[tuple[int, Any]] = []
        self._old_fd = -1
        self._parent = Parent()
        self._thread = threading.Thread(target=self._run, name="natslease-watch", daemon=True)

    def start(self, handler: Callable[[int, FrameType | None], Any] | None) -> None:
        """Begins.

        Args:
            handler: Python's handler of the signals, in the main thread; None: signals stay as they
                are.
        """
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        if handler is not None and threading.current_thread() is threading.main_thread():
            self._restore = [(number, signal.signal(number, handler)) for number in SIGNALS]
            self._old_fd = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
            _running.add(self)
        self._thread.start()

    def wake(self) -> None:
        """Has ``tick`` called soon."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(OSError):
            self._writing.send(b"\0")

    def stop(self) -> None:
        """Ends; the signals are as they were before."""
        self._give_signals_back(self._old_fd)
        self._ended = True
        self.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(5.0)
            self._reading.close()
            self._writing.close()

    def _give_signals_back(self, fd: int) -> None:
        _running.discard(self)
        if self._restore:
            signal.set_wakeup_fd(fd)
            for number, handler in self._restore:
                signal.signal(number, handler)
            self._restore = []

    @contextlib.contextmanager
    def running(self, handler: Callable[[int, FrameType | None], Any] | None) -> Iterator[None]:
        self.start(handler)
        try:
            yield
        finally:
            self.stop()

    def _run(self) -> None:
        awaited: list[Any] = [self._reading]
        if self._parent.sentinel is not None:
            awaited.append(self._parent.sentinel)
        told = False
        ticks = 0
        while not self._ended:
            try:
                ready = wait(awaited, _TICK)
            except (OSError, ValueError):
                return  # closed
            ticks += 1
            looks = self._parent.sentinel in ready or ticks % _PARENT_EVERY == 0
            try:
                if looks and not told and not self._parent.is_alive():
                    told, awaited = True, [self._reading]
                    log.error("the process that started this worker is gone")
                    self._orphaned()
                if self._reading in ready:
                    for number in self._reading.recv(64):
                        if number in SIGNALS:
                            self._signalled(number)
                self._tick()
            except Exception:
                log.exception("the watch failed")


_running: weakref.WeakSet[Watch] = weakref.WeakSet()


def _in_child() -> None:
    # The socket is shared: a signal to a forked child would arrive here as its parent's.
    for watch in list(_running):
        watch._give_signals_back(-1)


os.register_at_fork(after_in_child=_in_child)
