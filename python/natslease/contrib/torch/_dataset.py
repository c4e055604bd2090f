"""A dataset whose items are tasks."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from ... import ConfigError, Unavailable
from ...worker import Abandoned, Backoff, Custody, Ending, ExitCode, Source, Task, reason_of
from . import _wire
from ._bound import Bound
from ._feeder import Ask, Feeder
from ._server import Server

log = logging.getLogger("natslease.worker")


def _base() -> Any:
    """What a DataLoader knows an iterable dataset by, where there is torch."""
    try:
        from torch.utils.data import IterableDataset
    except ImportError:
        return object
    return IterableDataset


class TaskDataset(_base()):  # type: ignore[misc]
    """Tasks as the items of a dataset, for a DataLoader with any number of subprocesses.

        with TaskDataset(source, load=load, batch_size=16) as dataset:
            for batch in DataLoader(dataset, batch_size=16, num_workers=8, collate_fn=list):
                for task, result in predict(batch):
                    dataset.done(task, result)

    The process that makes it, and enters it, reserves for all subprocesses with one feeder, holds
    the leases, extends what waits, and delivers results in the background. It does not hold more
    than it finishes within ``share`` of a lease at the speed that it measures. Subprocesses hold
    nothing: what a killed one had is handed to another, or given back in the end.

    SIGTERM ends the iteration, and what is in flight can be finished within ``grace``. After that,
    with a second one, or when a newer worker is in its place, everything is given back, and the
    ``with`` block is left by ``SystemExit`` with the code of ``ExitCode``.
    """

    def __init__(
        self,
        source: Source,
        *,
        load: Callable[[Task], Any] | None = None,
        batch_size: int = 16,
        batches: bool = False,
        most: int = 1024,
        share: float = 0.5,
        until_empty: bool = True,
        wait: float = 1.0,
        grace: float = 25.0,
        max_hold: float = 3600.0,
        retry_for: float = 600.0,
        idle_backoff: float = 12.0,
    ) -> None:
        """Nothing is started.

        Args:
            source: where tasks are from.
            load: makes an item of a task, in the subprocess; an item is the task when left out.
                When it raises, the task has failed, and the others go on.
            batch_size: how many tasks a subprocess takes at once. Give the DataLoader's, so that a
                subprocess gets a batch's worth in one go.
            batches: items are lists of up to ``batch_size``, for a DataLoader with
                ``batch_size=None``. They come as soon as there are tasks, while the DataLoader's
                own batches wait until they are full, or the iteration ends: use it with
                ``until_empty=False``.
            most: how many tasks are held at the most, whatever the speed.
            share: of a lease in which what is held is to be finished.
            until_empty: the iteration ends when the source is empty. Else it goes on for ever.
            wait: seconds to wait for tasks in one call.
            grace: seconds for what is in flight after the first SIGTERM.
            max_hold: seconds for which a task is held at the most.
            retry_for: seconds for which it is tried to deliver a result.
            idle_backoff: the longest pause after an empty answer or an error.

        Raises:
            ConfigError: an option is wrong.
        """
        for option, value in (("batch_size", batch_size), ("most", most)):
            if value < 1:
                raise ConfigError(f"{option}: is {value}: it must be positive")
        if not 0 < share <= 1:
            raise ConfigError(f"share: is {share!r}: it must be above 0 and at most 1")
        self._load = load
        self._batches = batches
        self._batch_size = batch_size
        self._pid = os.getpid()
        self._address = ""
        self._times = 0  # that a subprocess has iterated it
        #: How it ended, once the block is left.
        self.exit_code: ExitCode | None = None
        custody = Custody(
            source,
            lost=lambda error: ending.lose(error),
            max_hold=max_hold,
            retry_for=retry_for,
            settled=lambda n: feeder.on_settled(n),
        )
        bound = Bound(min(4 * batch_size, most), most, share)
        feeder = Feeder(
            source,
            custody,
            bound=bound,
            batch_size=batch_size,
            most=most,
            until_empty=until_empty,
            wait=wait,
            backoff=Backoff(0.5, idle_backoff),
            lose=lambda error: ending.lose(error),
        )
        ending = Ending(source.name, custody, grace, drained=feeder.stop, patience=wait)
        self._here: _Here | None = _Here(source, custody, feeder, ending)

    def __getstate__(self) -> dict[str, Any]:
        """For subprocesses: where to take from, and how to load."""
        return {**self.__dict__, "_here": None}

    # The process that has the feeder.

    def __enter__(self) -> TaskDataset:
        here = self._require("entered")
        here.start()
        self._address = here.server.address
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Delivers what is done, and gives the rest back.

        Raises:
            Unavailable: results could not be delivered; their tasks were given back.
            SystemExit: it was told to end at once, or fenced; with the code of ``ExitCode``.
        """
        here = self._require("left")
        code = self.exit_code = here.finish()
        if error is None and code == ExitCode.UNDELIVERED:
            raise Unavailable("results could not be delivered", outcome="unknown")
        if isinstance(error, Abandoned) or (error is None and code != ExitCode.DONE):
            raise SystemExit(int(code)) from None

    def done(self, task: Task | str, result: Any = None) -> bool:
        """A task is done: its result is delivered in the background.

        Args:
            task: the task, or its key.
            result: what came of it.

        Returns:
            False if it is no longer held: it was settled already, or given back.
        """
        here = self._require("told what is done")
        return here.feeder.settle(task if isinstance(task, str) else task.key, result)

    def failed(self, task: Task | str, reason: str | BaseException, *, retry: bool = True) -> bool:
        """A task has failed; see ``done`` and ``natslease.worker.Failed``."""
        here = self._require("told what has failed")
        text = reason if isinstance(reason, str) else reason_of(reason)
        return here.feeder.fail(task if isinstance(task, str) else task.key, text, retry)

    def stop(self) -> None:
        """Ends the iteration, like the first SIGTERM."""
        self._require("stopped").ending.drain("asked to stop")

    @property
    def held(self) -> int:
        """How many tasks are held."""
        return len(self._require("asked").custody)

    def _require(self, what: str) -> _Here:
        if self._here is None or os.getpid() != self._pid:
            raise RuntimeError(f"a TaskDataset can be {what} only by the process that made it")
        return self._here

    # Wherever it is iterated.

    def __iter__(self) -> Iterator[Any]:
        if not self._address:
            raise RuntimeError("iterate a TaskDataset within its with block")
        if self._here is not None and os.getpid() == self._pid:
            return self._iterate_here(self._here.feeder)
        return self._iterate_there()

    def _iterate_here(self, feeder: Feeder) -> Iterator[Any]:
        iteration = object()
        while True:
            ask = Ask(self._batch_size, taker=None, iteration=iteration, order=None)
            tasks = feeder.take(ask)
            if tasks is None:
                return
            yield from self._items(tasks, lambda task, why: feeder.fail(task.key, why, True))

    def _iterate_there(self) -> Iterator[Any]:
        self._times += 1
        with _wire.taking(self._address, self._times) as taker:
            if taker is None:
                return
            made = 0
            while True:
                batch, part = divmod(made, 1 if self._batches else self._batch_size)
                tasks = taker.take(batch, self._batch_size - part)
                if tasks is None:
                    return
                for item in self._items(tasks, taker.failed):
                    made += 1
                    yield item

    def _items(self, tasks: list[Task], failed: Callable[[Task, str], Any]) -> Iterator[Any]:
        items = self._loaded(tasks, failed)
        if not self._batches:
            yield from items
        elif batch := list(items):
            yield batch

    def _loaded(self, tasks: list[Task], failed: Callable[[Task, str], Any]) -> Iterator[Any]:
        for task in tasks:
            item = task if self._load is None else self._try_to_load(self._load, task, failed)
            if item is not _FAILED:
                yield item

    def _try_to_load(
        self, load: Callable[[Task], Any], task: Task, failed: Callable[[Task, str], Any]
    ) -> Any:
        try:
            return load(task)
        except Exception as error:
            log.exception("task %s of job %s cannot be loaded", task.id or task.key, task.job)
            failed(task, reason_of(error))
            return _FAILED


_FAILED = object()


class _Here:
    """What only the process that has the feeder has."""

    def __init__(self, source: Source, custody: Custody, feeder: Feeder, ending: Ending) -> None:
        self.source = source
        self.custody = custody
        self.feeder = feeder
        self.ending = ending
        self._watched = ending.watched()

    def start(self) -> None:
        self.server = Server(self.feeder)
        self._watched.__enter__()
        self.ending.busy = True
        self.custody.start()
        self.feeder.start()
        self.server.start()

    def finish(self) -> ExitCode:
        self.ending.busy = False
        try:
            code = self.ending.finish()
        finally:
            self._watched.__exit__(None, None, None)
        self.feeder.stop()
        self.server.close()
        self.feeder.join(1.0)
        self.source.close()
        return code
