"""Extends leases over HTTP. Over NATS the core does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from .._errors import Error, Superseded
from ._task import Task

log = logging.getLogger("natslease.worker")

# An extension is first tried with two thirds of the lease left, then more often.
_FIRST = 1 / 3
_AGAIN = 1 / 9
_MOST = 1_000  # in one request
_IDLE = 3600.0


class _Kept:
    __slots__ = ("due", "expires", "task", "until")

    def __init__(self, task: Task, now: float, ack_wait: float, max_hold: float) -> None:
        self.task = task
        self.due = now + ack_wait * _FIRST
        self.expires = now + ack_wait
        self.until = now + max_hold


class Extender:
    """Knows which leases are to be extended, and when. One thread extends, any may add."""

    def __init__(
        self,
        post: Callable[[Sequence[Task]], Mapping[str, str]],
        ack_wait: Callable[[], float],
    ) -> None:
        self._post = post
        self._ack_wait = ack_wait
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}

    def add(self, tasks: Sequence[Task], max_hold: float) -> None:
        now, ack_wait = time.monotonic(), self._ack_wait()
        with self._lock:
            for task in tasks:
                self._kept[task.key] = _Kept(task, now, ack_wait, max_hold)

    def remove(self, tasks: Sequence[Task]) -> None:
        with self._lock:
            for task in tasks:
                self._kept.pop(task.key, None)

    def extend(self) -> float:
        """Extends what is due. Returns seconds until something is.

        Raises:
            Superseded: a newer worker is in this one's place.
        """
        now, ack_wait = time.monotonic(), self._ack_wait()
        due = self._take(now, ack_wait)
        for start in range(0, len(due), _MOST):
            tasks = due[start : start + _MOST]
            try:
                told = self._post(tasks)
            except Superseded:
                raise
            except Error as error:  # tried again while their time lasts
                log.warning("%d leases could not be extended: %s", len(tasks), error)
                continue
            self._renew(now, told)
        with self._lock:
            return min((kept.due for kept in self._kept.values()), default=now + _IDLE) - now

    def _take(self, now: float, ack_wait: float) -> list[Task]:
        due: list[Task] = []
        with self._lock:
            for key, kept in list(self._kept.items()):
                if now >= min(kept.until, kept.expires):
                    del self._kept[key]
                    why = "the most it may be held" if now >= kept.until else "its lease"
                    log.warning("%r: %s is over", kept.task, why)
                elif now >= kept.due:
                    kept.due = now + ack_wait * _AGAIN
                    due.append(kept.task)
        return due

    def _renew(self, asked: float, told: Mapping[str, str]) -> None:
        ack_wait = self._ack_wait()
        with self._lock:
            for key, status in told.items():
                kept = self._kept.get(key)
                if kept is None:
                    continue
                if status == "extended":
                    kept.due = asked + ack_wait * _FIRST
                    kept.expires = asked + ack_wait
                elif status != "unknown":
                    del self._kept[key]
                    if status != "impossible":
                        log.warning("%r cannot be extended: %s", kept.task, status)
