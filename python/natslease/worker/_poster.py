"""Settles what is finished, beside the work."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from .._errors import Error
from ._backoff import Backoff
from ._source import Source, listed, passes
from ._task import Outcome, Status

log = logging.getLogger("natslease.worker")

_MOST = 256  # in one call, unless more were finished in one
_FULL = 4_096  # who has so many finished and not settled waits


class Poster:
    """One thread that gives outcomes to the source until it has said what became of each."""

    def __init__(
        self,
        source: Source,
        settled: Callable[[Sequence[Outcome], Sequence[Status]], None],
        refused: Callable[[Error], None],
        retry_for: float,
    ) -> None:
        """
        Args:
            source: which settles.
            settled: is told what is over, from the poster's thread.
            refused: is told an error that does not pass, once.
            retry_for: seconds after which an outcome is given up.
        """
        self._source = source
        self._settled = settled
        self._refused = refused
        self._retry_for = retry_for
        self._backoff = Backoff(0.5, 30.0)
        self._changed = threading.Condition()
        # As they were finished, with the time: what was reserved together is settled at less cost.
        self._queue: deque[tuple[Sequence[Outcome], float]] = deque()
        self._size = 0
        self._deadline: float | None = None  # set: ends when empty, then at the latest
        self._hopeless = False  # the source refuses, whatever it is asked
        self._thread = threading.Thread(target=self._run, name="natslease-poster", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, outcomes: Sequence[Outcome]) -> None:
        """Takes outcomes over. Waits while too many are not settled yet."""
        now = time.monotonic()
        with self._changed:
            while self._size >= _FULL and self._deadline is None:
                self._changed.wait()
            self._queue.append((outcomes, now))
            self._size += len(outcomes)
            self._changed.notify_all()

    def close(self, deadline: float) -> list[Outcome]:
        """Waits until all is settled, or the deadline on the monotonic clock. Returns what is not.

        A later call may have an earlier deadline, and then ends the first one too.
        """
        with self._changed:
            self._deadline = min(self._deadline or deadline, deadline)
            self._changed.notify_all()
        if self._thread.is_alive():
            while (left := (self._deadline or 0.0) - time.monotonic()) > 0:
                self._thread.join(min(left, 0.1))
                if not self._thread.is_alive():
                    break
        with self._changed:
            return [outcome for outcomes, _ in self._queue for outcome in outcomes]

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and self._deadline is None:
                    self._changed.wait()
                if self._over():
                    return
                taken = self._next()
            again = self._settle(taken)
            if again is None:
                self._backoff.reset()
                continue
            with self._changed:
                # In a hurry it is tried more often: what is not settled by the end is given back.
                wait = again if self._deadline is None else min(again, 1.0)
                if not self._over():
                    self._changed.wait_for(lambda: self._deadline is not None, timeout=wait)

    def _next(self) -> list[tuple[Sequence[Outcome], float]]:
        """What is settled in one call. It stays in the queue until it is over."""
        taken: list[tuple[Sequence[Outcome], float]] = []
        size = 0
        for chunk in self._queue:
            size += len(chunk[0])
            if taken and size > _MOST:
                break
            taken.append(chunk)
        return taken

    def _over(self) -> bool:
        if self._deadline is None:
            return False
        return not self._queue or self._hopeless or time.monotonic() >= self._deadline

    def _settle(self, taken: list[tuple[Sequence[Outcome], float]]) -> float | None:
        """One try. Returns seconds to wait before the next if it was in vain."""
        outcomes = [outcome for some, _ in taken for outcome in some]
        try:
            statuses = self._source.settle(outcomes)
        except Error as error:
            if not passes(error):
                self._hopeless = True
                self._refused(error)
            wait = self._backoff.next(error.retry_after)
            log.warning(
                "%s: %d results are not delivered yet, again in %.1f s: %s",
                self._source.name,
                len(outcomes),
                wait,
                error,
            )
            self._conclude(taken, ["unknown"] * len(outcomes))
            return wait
        except Exception:
            # Nobody else would notice that results are no longer delivered.
            log.exception("%s: settling failed", self._source.name)
            self._conclude(taken, ["unknown"] * len(outcomes))
            return self._backoff.next()
        self._conclude(taken, statuses)
        return self._backoff.next() if "unknown" in statuses else None

    def _conclude(
        self, taken: list[tuple[Sequence[Outcome], float]], statuses: Sequence[Status]
    ) -> None:
        """Takes out what is over; the rest stays for the next try."""
        left: list[tuple[Sequence[Outcome], float]] = []
        over: list[Outcome] = []
        ends: list[Status] = []
        given_up: list[Outcome] = []
        start = 0
        for some, since in taken:
            told = statuses[start : start + len(some)]
            start += len(some)
            again: Sequence[Outcome] = ()
            if "unknown" in told:
                again = [o for o, status in zip(some, told, strict=True) if status == "unknown"]
            if again and time.monotonic() - since < self._retry_for:
                left.append((again, since))
                over += [o for o, status in zip(some, told, strict=True) if status != "unknown"]
                ends += [status for status in told if status != "unknown"]
            else:
                given_up += again
                over += some
                ends += told
        if given_up:
            log.error(
                "%s: the outcomes of %s could not be delivered for %g s and are given up; the "
                "tasks are offered again",
                self._source.name,
                listed(given_up),
                self._retry_for,
            )
        with self._changed:
            for _ in taken:
                self._queue.popleft()
            self._queue.extendleft(reversed(left))
            self._size -= len(over)
            self._changed.notify_all()
        self._settled(over, ends)
