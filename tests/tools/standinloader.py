"""Loads as torch's DataLoader does, where there is no torch.

Its subprocesses are asked for batches in turn and ahead of time, and batches come in that order.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import ModuleType, SimpleNamespace
from typing import Any

AHEAD = 2


class DataLoader:
    """An iterable dataset's batches."""

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int | None,
        num_workers: int,
        multiprocessing_context: str | None,
        collate_fn: Callable[[list[Any]], Any],
    ) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._n = num_workers
        self._method = multiprocessing_context
        self._collate = collate_fn

    def __iter__(self) -> Iterator[Any]:
        return self._in_subprocesses() if self._n else self._here()

    def _here(self) -> Iterator[Any]:
        batches = iter(self._dataset)
        while batch := _take(batches, self._batch_size):
            yield self._collate(batch)

    def _in_subprocesses(self) -> Iterator[Any]:
        context = multiprocessing.get_context(self._method)
        seed = random.getrandbits(32)
        ends: list[Connection] = []
        processes = []
        for number in range(self._n):
            mine, other = context.Pipe()
            process = context.Process(  # type: ignore[attr-defined]
                target=_work,
                args=(self._dataset, number, seed, self._batch_size, self._collate, other),
                daemon=True,
            )
            process.start()
            other.close()
            ends.append(mine)
            processes.append(process)
        try:
            for end in ends * AHEAD:
                end.send("next")
            live = list(range(self._n))
            while live:
                for number in list(live):
                    batch = self._next(ends[number], processes[number])
                    if batch is None:
                        live.remove(number)
                        continue
                    with suppress(OSError):  # it is noticed when its next batch is awaited
                        ends[number].send("next")
                    yield batch
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()

    def _next(self, end: Connection, process: Any) -> Any:
        wait([end, process.sentinel])
        try:
            return end.recv()
        except (EOFError, OSError):
            raise RuntimeError(f"DataLoader worker (pid {process.pid}) is killed") from None


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    while parent.pid == os.getppid() or parent.is_alive():
        time.sleep(0.5)
    os._exit(1)


def _take(items: Iterator[Any], n: int | None) -> list[Any]:
    if n is None:
        return next(items, [])
    return [item for _, item in zip(range(n), items, strict=False)]


def _work(
    dataset: Any,
    number: int,
    seed: int,
    batch_size: int | None,
    collate: Callable[[list[Any]], Any],
    end: Connection,
) -> None:
    info = SimpleNamespace(id=number, seed=seed + number)
    data = ModuleType("torch.utils.data")
    data.get_worker_info = lambda: info  # type: ignore[attr-defined]
    sys.modules["torch.utils.data"] = data
    threading.Thread(target=_watch_parent, daemon=True).start()
    items = iter(dataset)
    try:
        while end.recv():
            batch = _take(items, batch_size)
            end.send(collate(batch) if batch else None)
    except (EOFError, OSError):
        return
