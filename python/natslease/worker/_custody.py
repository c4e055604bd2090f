"""Who has which lease, from its reserve until it is settled or given back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from .._errors import Error
from ._backoff import Backoff
from ._poster import Poster
from ._source import Source, listed, passes
from ._task import Batch, Done, Failed, Outcome, Status, Task

log = logging.getLogger("natslease.worker")

# A task's states: it is not ours; it waits in this process; a handler has it; its outcome is being
# delivered.
GONE, WAITING, HANDED, FINISHED = range(4)

_GIVE_BACK = 5.0


class Custody:
    """Owns every lease of a worker:

        reserve -> WAITING -> hand -> HANDED -> finish -> FINISHED -> the source has settled it

    From the first two states a lease can be given back instead. Whoever takes a task out of here
    settles or releases it; nothing is settled twice, and what was given back is not settled.

    Two threads belong to it: the poster delivers outcomes, the keeper extends leases and gives
    signs of life. They begin with ``start`` and end with ``close``.
    """

    def __init__(
        self,
        source: Source,
        *,
        lost: Callable[[Error], None],
        max_hold: float = 3600.0,
        retry_for: float = 600.0,
        settled: Callable[[int], None] = lambda _: None,
    ) -> None:
        """
        Args:
            source: where tasks are from.
            lost: is told an error after which there is no going on: fenced, or refused. From any
                thread, perhaps more than once.
            max_hold: seconds for which a task is held at the most.
            retry_for: seconds for which it is tried to deliver an outcome.
            settled: is told how many tasks are over, from the poster's thread.
        """
        self._source = source
        self._lost = lost
        self._max_hold = max_hold
        self._on_settled = settled
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._retrying = 0
        self._held: dict[int, Task] = {}  # by identity
        self._closed = False
        self._undelivered = 0
        self._poster = Poster(source, self._over, lost, retry_for)
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="natslease-keeper", daemon=True)

    def __len__(self) -> int:
        """How many tasks are held, in whichever state."""
        return len(self._held)

    @staticmethod
    def is_handed(task: Task) -> bool:
        """Whether a handler has it."""
        return task.state == HANDED

    @property
    def retrying(self) -> int:
        """How many tasks have failed and are about to be offered again."""
        return self._retrying

    def await_retried(self, timeout: float) -> bool:
        """Waits until there is no such task."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._retrying, timeout)

    def start(self) -> None:
        self._poster.start()
        self._keeper.start()

    # The way of a lease.

    def reserve(self, n: int, wait: float) -> Batch:
        """Takes up to n tasks, which are WAITING then; none once it is closed."""
        if self._closed:
            return Batch()
        batch = self._source.reserve(n, wait)
        if not batch:
            return batch
        with self._lock:
            closed = self._closed
            if not closed:
                for task in batch:
                    task.state = WAITING
                    self._held[id(task)] = task
        if closed:
            self._give_back(batch)
            return Batch()
        self._source.keep(batch, self._max_hold)
        if log.isEnabledFor(logging.INFO):
            for job, tasks in _by_job(batch):
                log.info(
                    "%s: reserved %d of job %s: %s",
                    self._source.name,
                    len(tasks),
                    job,
                    listed(tasks),
                )
        return batch

    def hand(self, tasks: Iterable[Task]) -> list[Task]:
        """A handler takes over. Returns those that are still here."""
        return self._move(tasks, (WAITING,), HANDED)

    def take_back(self, tasks: Iterable[Task]) -> list[Task]:
        """A handler is gone without a word. Returns those that it still had."""
        return self._move(tasks, (HANDED,), WAITING)

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """A handler is done with tasks. What it no longer had is left alone."""
        moved = self._move([outcome.task for outcome in outcomes], (WAITING, HANDED), FINISHED)
        mine = list(outcomes)
        if len(moved) < len(outcomes):
            mine = self._sort_out(outcomes, moved)
        for outcome in mine:
            if isinstance(outcome, Failed):
                log.error(
                    "%s: task %s of job %s failed%s: %s",
                    self._source.name,
                    outcome.task.id or outcome.task.key,
                    outcome.task.job,
                    "" if outcome.retry else " for good",
                    outcome.reason,
                )
        if mine:
            with self._lock:
                self._retrying += _retried(mine)
            self._poster.put(mine)

    def _sort_out(self, outcomes: Sequence[Outcome], moved: Sequence[Task]) -> list[Outcome]:
        left = {id(task) for task in moved}
        mine: list[Outcome] = []
        others: list[Outcome] = []
        for outcome in outcomes:
            (mine if id(outcome.task) in left else others).append(outcome)
            left.discard(id(outcome.task))  # the first word counts
        log.warning("%s: no longer held: %s", self._source.name, listed(others))
        return mine

    def fail_handed(self, reason: str) -> None:
        """All that handlers have has failed."""
        with self._lock:
            handed = [task for task in self._held.values() if task.state == HANDED]
        self.finish([Failed(task, reason) for task in handed])

    def release(self, tasks: Iterable[Task]) -> None:
        """Gives back tasks that are not finished."""
        with self._lock:
            given = [task for task in tasks if task.state in (WAITING, HANDED)]
            self._forget(given)
        self._give_back(given)

    def _forget(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            task.state = GONE
            self._held.pop(id(task), None)

    def _move(self, tasks: Iterable[Task], from_: tuple[int, ...], to: int) -> list[Task]:
        with self._lock:
            moved = []
            for task in tasks:
                if task.state in from_:
                    task.state = to
                    moved.append(task)
        return moved

    # The end.

    def give_up(self) -> list[Task]:
        """Gives back all that is not finished; from now on nothing is taken or finished."""
        with self._lock:
            self._closed = True
            given = [task for task in self._held.values() if task.state != FINISHED]
            self._forget(given)
        self._give_back(given)
        return given

    def close(self, deadline: float) -> int:
        """Delivers what is finished until the deadline, on the monotonic clock; the rest is given
        back. Returns how many results could not be delivered."""
        self.give_up()
        late = self._poster.close(deadline)
        with self._lock:
            given = [outcome.task for outcome in late if outcome.task.state == FINISHED]
            self._forget(given)
            self._undelivered += len(given)
        if given:
            log.error("%s: results not delivered: %s", self._source.name, listed(given))
            self._give_back(given)
        self._ended.set()
        if self._keeper.is_alive():
            self._keeper.join(max(deadline - time.monotonic(), 1.0))
        return self._undelivered

    def _give_back(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        log.info("%s: gives back %d tasks: %s", self._source.name, len(tasks), listed(tasks))
        backoff, end = Backoff(0.2, 1.0), time.monotonic() + _GIVE_BACK
        while (error := self._release(tasks)) is not None:
            wait = backoff.next()
            if not passes(error) or time.monotonic() + wait > end:
                # Nobody extends them any more, so that they run out and are offered again.
                self._source.unkeep(tasks)
                log.warning("%s: could not give them back: %s", self._source.name, error)
                return
            time.sleep(wait)

    def _release(self, tasks: Sequence[Task]) -> Error | None:
        try:
            self._source.release(tasks)
        except Error as error:
            return error
        return None

    def _over(self, outcomes: Sequence[Outcome], statuses: Sequence[Status]) -> None:
        """The poster is done with outcomes."""
        with self._lock:
            self._forget(outcome.task for outcome in outcomes)
            self._retrying -= _retried(outcomes)
            self._changed.notify_all()
        self._source.unkeep([outcome.task for outcome in outcomes])
        by_status: dict[Status, Sequence[Outcome]] = {}
        if statuses.count("settled") == len(statuses):  # as a rule
            by_status["settled"] = outcomes
        else:
            pairs = list(zip(outcomes, statuses, strict=True))
            for status in set(statuses):
                by_status[status] = [outcome for outcome, told in pairs if told == status]
            self._undelivered += sum(isinstance(o, Done) for o in by_status.get("unknown", ()))
        for status, some in by_status.items():
            level = logging.INFO if status == "settled" else logging.WARNING
            if log.isEnabledFor(level):
                for job, tasks in _by_job(outcome.task for outcome in some):
                    log.log(
                        level, "%s: %s of job %s: %s", self._source.name, status, job, listed(tasks)
                    )
        self._on_settled(len(outcomes))

    # Signs of life.

    def _keep(self) -> None:
        backoff = Backoff(0.5, 5.0)
        wait = 0.2
        while not self._ended.wait(wait):
            wait = self._beat(backoff)

    def _beat(self, backoff: Backoff) -> float:
        try:
            wait = self._source.beat()
        except Error as error:
            if not passes(error):
                self._lost(error)
            log.warning("%s: no sign of life: %s", self._source.name, error)
            return max(0.2, backoff.next(error.retry_after))
        except Exception:
            # Nobody else would notice that leases are no longer extended.
            log.exception("%s: the keeper failed", self._source.name)
            return 5.0
        backoff.reset()
        # At least once a second: leases are added meanwhile.
        return max(0.05, min(wait, 1.0))


def _retried(outcomes: Sequence[Outcome]) -> int:
    return sum(isinstance(outcome, Failed) and outcome.retry for outcome in outcomes)


def _by_job(tasks: Iterable[Task]) -> Iterable[tuple[str, list[Task]]]:
    jobs: dict[str, list[Task]] = {}
    for task in tasks:
        jobs.setdefault(task.job, []).append(task)
    return jobs.items()
