"""How many tasks to hold."""

from __future__ import annotations

import math
import time

# Seconds after which a measurement counts for a third.
_MEMORY = 60.0


class Bound:
    """Follows the measured speed: what is held is to be finished within a part of its lease."""

    def __init__(self, start: int, most: int, share: float) -> None:
        """
        Args:
            start: how many until something has been finished.
            most: never more.
            share: of the lease.
        """
        self._start = start
        self._most = most
        self._share = share
        self._finished = 0.0  # decayed
        self._seconds = 0.0  # in which there was something to do, decayed
        self._since: float | None = None  # when this was last brought up to date; None: idle

    def begin(self) -> None:
        """From now on there is something to do."""
        if self._since is None:
            self._since = time.monotonic()

    def finished(self, n: int, held: int) -> None:
        """So many were finished; so many are still held."""
        now = time.monotonic()
        elapsed = now - (self._since if self._since is not None else now)
        decay = math.exp(-elapsed / _MEMORY)
        self._finished = self._finished * decay + n
        self._seconds = self._seconds * decay + elapsed
        self._since = now if held else None

    @property
    def speed(self) -> float:
        """Tasks a second; 0.0 until something has been finished."""
        return self._finished / self._seconds if self._seconds > 0 else 0.0

    def limit(self, ack_wait: float | None) -> int:
        """How many to hold at the most."""
        speed = self.speed
        if not speed or not ack_wait:
            return min(self._start, self._most)
        return max(1, min(int(speed * ack_wait * self._share), self._most))
