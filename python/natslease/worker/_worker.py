"""A worker: takes tasks, has them handled, delivers what comes of them."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any

from .._errors import ConfigError, Error, Superseded
from ._backoff import Backoff
from ._custody import Custody
from ._exit import ExitCode, exit_now
from ._source import Source, passes
from ._task import Done, Failed, Outcome, Task, reason_of
from ._watch import Watch

log = logging.getLogger("natslease.worker")

# What an end at once may take: giving back, and delivering what is finished.
_AT_ONCE = 8.0
# How long a handler may take to come out after it was interrupted.
_COME_OUT = 2.0
# How many failed tasks are remembered.
_SUSPECTS = 10_000


class Abandoned(BaseException):
    """Raised in a handler whose tasks were given back. Not an Exception: it is to pass through."""


class Worker:
    """Takes tasks from a source, has a handler work on them, and delivers the results.

    A worker is in one of these states, in this order; it may skip some:

        running     reserves and handles
        draining    (SIGTERM, ``stop()``, fenced while idle, source empty) reserves no more; what
                    the handler has is finished, and delivered, within ``grace``
        abandoning  (second SIGTERM, grace over, fenced, hung, orphaned) what is not finished is
                    given back at once, what is finished is delivered
        ended       ``run`` returns its exit code, or, when the handler cannot be interrupted, the
                    process ends with it

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
        self._grace = grace
        self._heartbeat_timeout = heartbeat_timeout
        self._until_empty = until_empty
        self._backoff = Backoff(0.5, idle_backoff)
        self._custody = Custody(source, lost=self._on_lost, max_hold=max_hold, retry_for=retry_for)
        self._watch = Watch(
            signalled=self._on_signal, orphaned=self._on_orphaned, tick=self._look_at_clocks
        )
        self._lock = threading.RLock()
        self._draining = threading.Event()
        self._abandoned = threading.Event()  # set once all is given back
        self._ended = threading.Event()
        self._code: ExitCode | None = None  # why it ends early
        self._lost: Error | None = None
        self._suspects: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._signals = 0
        self._deadline: float | None = None  # the grace's end, on the monotonic clock
        self._handling = False
        self._beat = 0.0
        self._interruptible = False  # whether run() is in the main thread

    # What others may call, from any thread, and from the handler.

    def stop(self) -> None:
        """Drains, like the first SIGTERM."""
        self._drain("asked to stop")

    def abandon(self) -> None:
        """Ends at once and gives back what is not finished, like the second SIGTERM."""
        self._abandon(ExitCode.RELEASED, "asked to end at once")

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
        self._interruptible = threading.current_thread() is threading.main_thread()
        with self._watch.running(self._python_handler if self._interruptible else None):
            try:
                self._custody.start()
                if self._open():
                    log.info("%s: runs", self._source.name)
                    while not self._draining.is_set():
                        self._round()
            except Abandoned:
                pass
            finally:
                code = self._shut()
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
                self._drain("no task is left")
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
            self._on_lost(error)
            return
        wait = self._backoff.next(error.retry_after)
        log.warning("%s: again in %.1f s: %s", self._source.name, wait, error)
        self._draining.wait(wait)

    # Handling.

    def _handle(self, tasks: list[Task]) -> None:
        left = list(tasks)
        reason = ""
        self.heartbeat()
        self._handling = True
        try:
            self._collect(self._handler(tasks), left)
        except Exception as error:
            log.exception("%s: the handler has raised", self._source.name)
            reason = reason_of(error)
        finally:
            self._handling = False
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

    # The end.

    def _shut(self) -> ExitCode:
        if not self._draining.is_set():  # the handler raised what is no Exception
            self._drain("the handler ends the worker")
        if self._lost is not None:
            self._abandon(_code_of(self._lost), str(self._lost))
        if self._code is None:
            deadline = self._deadline or time.monotonic() + self._grace
            undelivered = self._custody.close(deadline)
        else:
            self._abandoned.wait(_AT_ONCE * 2)
            undelivered = 0
        with self._lock:
            self._ended.set()
            code = self._code
        if code is None:
            code = ExitCode.UNDELIVERED if undelivered else ExitCode.DONE
        self._source.close()
        log.info("%s: ended: %s", self._source.name, code.name.lower())
        return code

    def _drain(self, why: str) -> None:
        with self._lock:
            if self._draining.is_set():
                return
            self._deadline = time.monotonic() + self._grace
            self._draining.set()
        log.info("%s: drains: %s", self._source.name, why)

    def _abandon(self, code: ExitCode, why: str) -> None:
        """Gives everything back at once, then gets the main thread out of the handler."""
        with self._lock:
            if self._code is not None or self._ended.is_set():
                return
            self._code = code
        self._drain(why)
        log.warning("%s: ends at once: %s", self._source.name, why)
        self._custody.close(time.monotonic() + _AT_ONCE)
        self._abandoned.set()
        if not self._interruptible or threading.current_thread() is threading.main_thread():
            return
        if self._handling:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        if not self._ended.wait(_COME_OUT):
            log.error("%s: the handler cannot be interrupted: exits", self._source.name)
            exit_now(code)

    def _python_handler(self, number: int, frame: FrameType | None) -> None:
        """Runs in the main thread. What is to be done for a signal, the watch does."""
        if self._handling and self._abandoned.is_set():
            raise Abandoned

    # What the watch, the poster and the keeper have to say.

    def _on_signal(self, number: int) -> None:
        if self._abandoned.is_set():
            return  # our own, see _abandon
        self._signals += 1
        name = signal.Signals(number).name
        if self._signals == 1:
            self._drain(name)
        else:
            self._abandon(ExitCode.RELEASED, f"a second {name}")

    def _on_orphaned(self) -> None:
        self._abandon(ExitCode.ORPHANED, "the process that started it is gone")

    def _on_lost(self, error: Error) -> None:
        """The source is of no use any more. May be called by a thread that ends with the custody:
        the watch does the rest."""
        with self._lock:
            if self._lost is None:
                self._lost = error
                log.error("%s: %s", self._source.name, error)
        self._draining.set()
        self._watch.wake()

    def _look_at_clocks(self) -> None:
        now = time.monotonic()
        if self._lost is not None:
            self._abandon(_code_of(self._lost), str(self._lost))
        elif self._deadline is not None and now > self._deadline and self._handling:
            self._abandon(ExitCode.RELEASED, f"its grace of {self._grace:g} s is over")
        elif (
            self._heartbeat_timeout is not None
            and self._handling
            and now - self._beat > self._heartbeat_timeout
        ):
            self._on_hung()

    def _on_hung(self) -> None:
        why = f"the handler gave no sign of life for {self._heartbeat_timeout:g} s"
        self._custody.fail_handed(why)
        self._abandon(ExitCode.HUNG, why)


def _code_of(error: Error) -> ExitCode:
    return ExitCode.FENCED if isinstance(error, Superseded) else ExitCode.REFUSED
