"""How late a call returns, less what the machine is to blame for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")


class Sleeper:
    """Sleeps beside the calls in the same process, and keeps account of how late it woke."""

    _interval = 0.01

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            due = time.monotonic() + self._interval
            time.sleep(self._interval)
            self.note(due)

    def note(self, due: float) -> None:
        """Takes note that somebody who was to wake at that time has woken now."""
        now = time.monotonic()
        self._late.append((now, now - due))

    def lateness(self, began: float, ended: float) -> float:
        """The machine's: the longest in that time."""
        return max((late for at, late in self._late if began <= at <= ended + 0.1), default=0.0)

    @classmethod
    @contextmanager
    def beside(cls) -> Iterator[Sleeper]:
        sleeper = cls()
        sleeper._thread.start()
        try:
            yield sleeper
        finally:
            sleeper._stop.set()
            sleeper._thread.join()

    def lateness_of(self, call: Callable[[], T], timeout: float) -> float:
        """Seconds by which the call exceeds its timeout; errors of natslease are not raised."""
        import natslease

        began = time.monotonic()
        with suppress(natslease.Error):
            call()
        ended = time.monotonic()
        return ended - began - timeout - self.lateness(began, ended)
