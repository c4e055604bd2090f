"""A worker: takes tasks, has them handled, delivers what comes of them."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._errors import ConfigError, Error
from ._backoff import Backoff
from ._custody import Custody
from ._ending import Abandoned, Ending
from ._exit import ExitCode
from ._source import Source, passes
from ._task import Done, Failed, Outcome, Task, reason_of

log = logging.getLogger("natslease.worker")

# How many failed tasks are remembered.
_SUSPECTS = 10_000


class Worker:
    """Takes tasks from a source, has a handler work on them, and delivers the results.

    A worker runs until it is told to end, then drains, or gives back at once what it has; see
    ``ExitCode`` for how it can end.

    Threads: the caller's reserves and handles. The poster delivers, the keeper extends leases and
    gives signs of life; the watch is told of signals, and ends what the caller's thread cannot.
    """

    def __init__(
        self,
        source: Source,
        handler: Callable[[list[Task]], Iterable[Any] | None],
        *,
        batch_size: int = 64,
        wait: float = 5.0,
        grace: float = 25.0,
        max_hold: float = 3600.0,
        heartbeat_timeout: float | None = None,
        retry_for: float = 600.0,
        until_empty: bool = False,
        idle_backoff: float = 12.0,
    ) -> None:
        """Nothing is started.

        Args:
            source: ``HTTPSource``, ``QueueSource``, or what has their methods.
            handler: gets a list of tasks and returns, or yields, what came of each: results in
                the order of the tasks, or ``Done`` and ``Failed`` in any order; an exception in
                place of a result says that this task failed. What it returns nothing for has
                failed, and what is left when it raises. Where the source needs no results, it may
                return None: all are done. A task that is not given out for the first time is
                handled by itself, so that a poisonous one takes no others with it.
            batch_size: how many tasks the handler gets at the most.
            wait: seconds to wait for tasks in one call; an end takes as long when idle.
            grace: seconds for what is in hand after the first SIGTERM. Keep it below what the
                supervisor grants before it kills.
            max_hold: seconds for which a task is held at the most.
            heartbeat_timeout: seconds without a result, or ``heartbeat()``, after which the handler
                counts as hung: its tasks have failed, and the worker ends with ``ExitCode.HUNG``.
                Left out: never.
            retry_for: seconds for which it is tried to deliver a result.
            until_empty: ends when the source is empty.
            idle_backoff: the longest pause, in seconds, after an empty answer or an error; with
                full jitter it is half that in the mean.

        Raises:
            ConfigError: an option is wrong.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size: is {batch_size}: it must be positive")
        for option, value in (
            ("grace", grace),
            ("max_hold", max_hold),
            ("heartbeat_timeout", heartbeat_timeout),
            ("retry_for", retry_for),
        ):
            if value is not None and not value > 0:
                raise ConfigError(f"{option}: is {value!r}: give seconds, more than 0")
        self._source = source
        self._handler = handler
        self._batch_size = batch_size
        self._wait = wait
        self._heartbeat_timeout = heartbeat_timeout
        self._until_empty = until_empty
        self._backoff = Backoff(0.5, idle_backoff)
        self._custody = Custody(
            source,
            lost=lambda error: self._ending.lose(error),
            max_hold=max_hold,
            retry_for=retry_for,
        )
        self._ending = Ending(source.name, self._custody, grace, hung=self._why_hung, patience=wait)
        self._draining = self._ending.draining
        self._suspects: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._beat = 0.0

    # What others may call, from any thread, and from the handler.

    def stop(self) -> None:
        """Drains, like the first SIGTERM."""
        self._ending.drain("asked to stop")

    def abandon(self) -> None:
        """Ends at once and gives back what is not finished, like the second SIGTERM."""
        self._ending.abandon(ExitCode.RELEASED, "asked to end at once")

    def heartbeat(self) -> None:
        """The handler's sign of life; each result it yields is one too."""
        self._beat = time.monotonic()

    @property
    def stopping(self) -> bool:
        """Whether it is to end. A handler may look, to return early."""
        return self._draining.is_set()

    # The life of a worker.

    def run(self) -> ExitCode:
        """Works until it is told to end. Call it once, in the main thread if signals are to end it.

        Returns:
            The code to exit with: ``sys.exit(worker.run())``.

        Raises:
            BaseException: what is no ``Exception`` and came from the handler, after all else was
                given back.
        """
        with self._ending.watched():
            try:
                self._custody.start()
                if self._open():
                    log.info("%s: runs", self._source.name)
                    while not self._draining.is_set():
                        self._round()
            except Abandoned:
                pass
            finally:
                code = self._ending.finish()
                self._source.close()
        return code

    def _open(self) -> bool:
        """Registers, however long it takes. False when it is to end before that."""
        while not self._draining.is_set():
            error = self._register()
            if error is None:
                return True
            self._pause(error)
        return False

    def _register(self) -> Error | None:
        try:
            self._source.open()
        except Error as error:
            return error
        return None

    def _round(self) -> None:
        began = time.monotonic()
        retrying = self._custody.retrying
        try:
            batch = self._custody.reserve(self._batch_size, self._wait)
        except Error as error:
            self._pause(error)
            return
        if batch:
            self._backoff.reset()
            for group in self._groups(batch):
                if self._draining.is_set():
                    return  # what is not started is given back
                tasks = self._custody.hand(group)
                if tasks:
                    self._handle(tasks)
        elif self._until_empty:
            # What has failed is offered again: only then it is asked for the last time.
            if not retrying:
                self._ending.drain("no task is left")
            elif not self._custody.await_retried(self._wait):
                log.info("%s: %d failures are not delivered yet", self._source.name, retrying)
        elif time.monotonic() - began < self._wait / 2:
            # Whoever has waited on purpose can be asked again at once.
            self._draining.wait(self._backoff.next(batch.retry_after))

    def _groups(self, batch: Sequence[Task]) -> list[list[Task]]:
        """What the handler gets in one go each: what may have failed before, by itself."""
        again = [[task] for task in batch if self._is_suspect(task)]
        if not again:
            return [list(batch)]
        first = [task for task in batch if not self._is_suspect(task)]
        return [first, *again] if first else again

    def _is_suspect(self, task: Task) -> bool:
        if task.attempt:
            return task.attempt > 1
        return bool(self._suspects) and (task.job, task.id) in self._suspects

    def _suspect(self, tasks: Iterable[Task]) -> None:
        """Remembers failures, for sources that do not tell how often a task was tried."""
        for task in tasks:
            if not task.attempt:
                self._suspects[task.job, task.id] = None
        while len(self._suspects) > _SUSPECTS:
            self._suspects.popitem(last=False)

    def _pause(self, error: Error) -> None:
        """Waits after an error, or ends for one that does not pass."""
        if not passes(error):
            self._ending.lose(error)
            return
        wait = self._backoff.next(error.retry_after)
        log.warning("%s: again in %.1f s: %s", self._source.name, wait, error)
        self._draining.wait(wait)

    # Handling.

    def _handle(self, tasks: list[Task]) -> None:
        left = list(tasks)
        reason = ""
        self.heartbeat()
        self._ending.busy = True
        try:
            self._collect(self._handler(tasks), left)
        except Exception as error:
            log.exception("%s: the handler has raised", self._source.name)
            reason = reason_of(error)
        finally:
            self._ending.busy = False
        if left and (reason or not self._draining.is_set()):
            got = len(tasks) - len(left)
            reason = reason or f"the handler returned {got} results for {len(tasks)} tasks"
            self._suspect(left)
            self._custody.finish([Failed(task, reason) for task in left])

    def _collect(self, answer: Any, left: list[Task]) -> None:
        """Takes what the handler returns or yields, and out of ``left`` what that is for."""
        if answer is None and not self._source.needs_result:
            outcomes: list[Outcome] = [Done(task) for task in left]
            left.clear()
            self._custody.finish(outcomes)
            return
        if answer is None or isinstance(answer, (str, bytes, dict)):
            kind = type(answer).__name__
            raise TypeError(f"the handler returned {kind}: return a list, or yield")
        if isinstance(answer, Sequence):
            outcomes = [out for item in answer if (out := self._outcome(item, left)) is not None]
            self._custody.finish(outcomes)
            return
        for item in answer:
            self.heartbeat()
            outcome = self._outcome(item, left)
            if outcome is not None:
                self._custody.finish([outcome])

    def _outcome(self, item: Any, left: list[Task]) -> Outcome | None:
        if not isinstance(item, (Done, Failed)):
            if not left:
                log.error("%s: the handler returned more results than tasks", self._source.name)
                return None
            task = left.pop(0)
            outcome: Outcome = Done(task, item)
            if isinstance(item, BaseException):
                outcome = Failed(task, item)
        elif item.task not in left:
            log.error("%s: not this handler's, or not any more: %r", self._source.name, item)
            return None
        else:
            # Ours, which has the lease: the handler's may have come back from another process.
            task = left.pop(left.index(item.task))
            outcome = item
            outcome.task = task
        if isinstance(outcome, Failed) and outcome.retry:
            self._suspect([task])
        return outcome

    def _why_hung(self) -> str:
        limit = self._heartbeat_timeout
        if limit is None or time.monotonic() - self._beat <= limit:
            return ""
        return f"the handler gave no sign of life for {limit:g} s"
