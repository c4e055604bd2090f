"""Reserves for all that take, in one process."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ... import Error
from ...worker import Backoff, Custody, Done, Failed, Source, Task, passes
from ._bound import Bound

log = logging.getLogger("natslease.worker")

_TICK = 1.0


class Ask:
    """Somebody waits for up to n tasks."""

    __slots__ = ("answer", "answered", "iteration", "n", "order", "since", "taker")

    def __init__(
        self, n: int, *, taker: object, iteration: object, order: tuple[int, int] | None
    ) -> None:
        """
        Args:
            n: how many at the most.
            taker: who asks; None: the process that has the feeder.
            iteration: which one of a loader it is part of.
            order: its place in the order in which a loader's main process gets what subprocesses
                make: the first batches of all by their numbers, then the second ones, and so on.
                None: it is the main process itself that waits.
        """
        self.n = n
        self.taker = taker
        self.iteration = iteration
        self.order = order
        self.since = time.monotonic()
        self.answer: list[Task] | None = None
        self.answered = False


class Feeder:
    """One thread reserves what others ask for, within a bound that follows their speed.

    Bounds and order: a loader's main process takes one batch of each subprocess in turn. If the
    bound kept that subprocess waiting whose batch is next, nothing would ever be settled and the
    bound never free. So whoever is first in that order among all that is handed out and not
    settled gets tasks whatever the bound says; as does, for loaders with another order, who has
    waited long without anything being settled.
    """

    def __init__(
        self,
        source: Source,
        custody: Custody,
        *,
        bound: Bound,
        batch_size: int,
        most: int,
        until_empty: bool,
        wait: float,
        backoff: Backoff,
        lose: Callable[[Error], None],
    ) -> None:
        self._source = source
        self._custody = custody
        self._bound = bound
        self._batch_size = batch_size
        self._most = most
        self._until_empty = until_empty
        self._wait = wait
        self._backoff = backoff
        self._lose = lose
        self._changed = threading.Condition()
        self._asks: list[Ask] = []
        self._waiting: deque[Task] = deque()  # reserved, for whoever asks
        self._handed: dict[str, tuple[Task, Ask]] = {}  # and not settled or failed
        self._over: set[object] = set()  # iterations that have ended
        self._takers = 0
        self._progress = time.monotonic()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="natslease-feeder", daemon=True)

    # What takers and the main process do.

    def take(self, ask: Ask) -> list[Task] | None:
        """Waits for tasks. None when there are none any more."""
        with self._changed:
            if self._stopped or ask.iteration in self._over:
                return None
            self._asks.append(ask)
            self._changed.notify_all()
            try:
                while not ask.answered:
                    self._changed.wait()
            except BaseException:  # interrupted: what it got is for others
                self._withdraw(ask)
                raise
            return ask.answer

    def _withdraw(self, ask: Ask) -> None:
        if ask.answered:
            self._put_back(ask.answer or ())
        else:
            self._asks.remove(ask)

    def settle(self, key: str, result: Any) -> bool:
        task = self._pop(key)
        if task is not None:
            self._custody.finish([Done(task, result)])
        return task is not None

    def fail(self, key: str, reason: str, retry: bool) -> bool:
        task = self._pop(key)
        if task is not None:
            self._custody.finish([Failed(task, reason, retry)])
        return task is not None

    def _pop(self, key: str) -> Task | None:
        with self._changed:
            task, _ = self._handed.pop(key, (None, None))
            if task is None:
                task = next((task for task in self._waiting if task.key == key), None)
                if task is None:
                    log.warning("%s: no longer held: %s", self._source.name, key)
                    return None
                self._waiting.remove(task)
            self._progress = time.monotonic()
            self._changed.notify_all()
            return task

    def joined(self) -> None:
        """A subprocess will take."""
        with self._changed:
            self._takers += 1

    def left(self, taker: object, *, early: bool) -> None:
        """A subprocess takes no more. If it left before the end, because it was killed or its
        loader given up, what it had is for others: unless it turns out to be done."""
        with self._changed:
            self._takers -= 1
            if not early:
                return
            tasks = [task for task, ask in self._handed.values() if ask.taker == taker]
            if tasks:
                log.warning(
                    "%s: a subprocess is gone, with %d tasks", self._source.name, len(tasks)
                )
            self._put_back(tasks)

    def _put_back(self, tasks: Iterable[Task]) -> None:
        back = self._custody.take_back(tasks)
        for task in back:
            self._handed.pop(task.key, None)
        self._waiting.extendleft(reversed(back))
        self._changed.notify_all()

    def on_settled(self, n: int) -> None:
        """The custody says that so many are over."""
        with self._changed:
            self._bound.finished(n, len(self._custody))
            self._changed.notify_all()

    # The feeder's own thread.

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Nobody gets anything any more. What waits is given back by the custody."""
        with self._changed:
            self._stopped = True
            self._end_all()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopped:
            error = self._open()
            if error is None:
                break
            self._pause(error)
        while not self._stopped:
            with self._changed:
                self._hand_out()
                n = self._wanted()
                if not n:
                    self._changed.wait(_TICK)
                    continue
            self._reserve(n)

    def _open(self) -> Error | None:
        try:
            self._source.open()
        except Error as error:
            return error
        return None

    def _hand_out(self) -> None:
        self._asks.sort(key=lambda ask: ask.order or (-1, -1))
        while self._asks and self._waiting:
            ask = self._asks.pop(0)
            n = min(ask.n, len(self._waiting))
            tasks = self._custody.hand([self._waiting.popleft() for _ in range(n)])
            for task in tasks:
                self._handed[task.key] = (task, ask)
            self._answer(ask, tasks)
            self._progress = time.monotonic()

    def _answer(self, ask: Ask, tasks: list[Task] | None) -> None:
        ask.answer, ask.answered = tasks, True
        self._changed.notify_all()

    def _wanted(self) -> int:
        """How many to reserve now."""
        if not self._asks or self._stopped:
            return 0
        held = len(self._custody)
        # As much as would make all of them busy: they ask one after the other, not at once.
        total = max(sum(ask.n for ask in self._asks), self._batch_size * self._takers)
        room = self._bound.limit(self._source.ack_wait) - held
        if room <= 0 and self._is_next(self._asks[0]):
            room = self._asks[0].n
        return max(0, min(total, room, self._most - held))

    def _is_next(self, ask: Ask) -> bool:
        """Whether nothing can be settled before this one gets tasks."""
        if ask.order is None:
            return True
        waits = time.monotonic() - max(self._progress, ask.since)
        if waits > max(1.0, (self._source.ack_wait or 60.0) / 10):
            return True
        return not any(
            other.iteration == ask.iteration and other.order is not None and other.order < ask.order
            for task, other in self._handed.values()
            if self._custody.is_handed(task)
        )

    def _reserve(self, n: int) -> None:
        began = time.monotonic()
        retrying = self._custody.retrying
        try:
            batch = self._custody.reserve(n, self._wait)
        except Error as error:
            self._pause(error)
            return
        if batch:
            self._backoff.reset()
            with self._changed:
                self._bound.begin()
                self._waiting.extend(batch)
            return
        if not self._until_empty:
            if time.monotonic() - began < self._wait / 2:
                self._sleep(self._backoff.next(batch.retry_after))
        elif retrying:  # what has failed is offered again: ask once more after that
            self._custody.await_retried(_TICK)
        else:
            with self._changed:
                if not self._waiting:
                    self._end_all()

    def _end_all(self) -> None:
        asks, self._asks = self._asks, []
        for ask in asks:
            if ask.iteration is not None:
                self._over.add(ask.iteration)
            self._answer(ask, None)

    def _pause(self, error: Error) -> None:
        if not passes(error):
            self._lose(error)
            self._sleep(_TICK)
            return
        wait = self._backoff.next(error.retry_after)
        log.warning("%s: again in %.1f s: %s", self._source.name, wait, error)
        self._sleep(wait)

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)
