"""Several workers on one machine, one for each slot (GPU)."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from ._backoff import Backoff
from ._exit import ExitCode, exit_now
from ._watch import Watch

log = logging.getLogger("natslease.worker")

# A child with one of these ended on purpose.
_FINAL = (ExitCode.DONE, ExitCode.FENCED, ExitCode.REFUSED)
# Who ran this long is not in a crash loop.
_HEALTHY = 60.0


def die_with_parent(grace: float = 15.0) -> None:
    """Ends this process when the one that started it, by multiprocessing, is gone.

    ``Worker`` and ``TaskDataset`` notice by themselves and give back what they have; this is for
    the time before they run, and for what they cannot interrupt.

    Args:
        grace: seconds until it ends.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        time.sleep(grace)
        exit_now(ExitCode.ORPHANED)

    threading.Thread(target=watch, name="natslease-parent", daemon=True).start()


class _Slot:
    def __init__(self, number: int) -> None:
        self.number = number
        self.process: BaseProcess | None = None
        self.backoff = Backoff(1.0, 60.0)
        self.started = 0.0
        self.due: float | None = 0.0  # when it is to be started; None: never again
        self.code = 0


def _child(target: Callable[..., Any], slot: int, args: tuple[Any, ...]) -> None:
    die_with_parent()
    code = target(slot, *args)
    raise SystemExit(int(code) if isinstance(code, int) else 0)


def run_slots(
    target: Callable[..., Any],
    slots: int,
    *,
    args: tuple[Any, ...] = (),
    restart: bool = True,
    grace: float = 30.0,
    start_method: str = "spawn",
) -> int:
    """Runs ``target(slot, *args)`` in a process for each slot, until all have ended.

    What crashes is started again, with backoff, but neither what was fenced or refused nor what
    has ended well. SIGTERM and SIGINT are passed on; a second one too. When this process dies, the
    children end.

    Args:
        target: what a child runs; its return value is the exit code. Importable, unless forked.
        slots: how many.
        args: more arguments.
        restart: whether to start again what crashes.
        grace: seconds after the first signal until children are killed.
        start_method: of multiprocessing. CUDA needs "spawn".

    Returns:
        0 if all ended well, else the code of one that did not.
    """
    context = multiprocessing.get_context(start_method)
    every = [_Slot(number) for number in range(slots)]
    ending: list[float] = []

    def pass_on(number: int) -> None:
        ending.append(time.monotonic())
        for slot in every:
            if slot.process is not None and slot.process.pid:
                os.kill(slot.process.pid, signal.SIGTERM)

    watch = Watch(signalled=pass_on, orphaned=lambda: pass_on(signal.SIGTERM))
    with watch.running(lambda *_: None):
        while any(slot.process is not None or slot.due is not None for slot in every):
            now = time.monotonic()
            for slot in every:
                if ending:
                    slot.due = None
                    if slot.process is not None and now - ending[0] > grace:
                        slot.process.kill()
                elif slot.process is None and slot.due is not None and now >= slot.due:
                    slot.process = context.Process(  # type: ignore[attr-defined]
                        target=_child, args=(target, slot.number, args)
                    )
                    slot.process.start()
                    slot.started = now
            wait([slot.process.sentinel for slot in every if slot.process is not None], 0.5)
            for slot in every:
                _reap(slot, restart and not ending)
    return next((slot.code for slot in every if slot.code), 0)


def _reap(slot: _Slot, restart: bool) -> None:
    process = slot.process
    if process is None or process.is_alive():
        return
    process.join()
    code = process.exitcode or 0
    slot.process, slot.due = None, None
    slot.code = code if code >= 0 else 128 - code
    if code in _FINAL or not restart:
        log.info("slot %d ended with %d", slot.number, slot.code)
        return
    if time.monotonic() - slot.started >= _HEALTHY:
        slot.backoff.reset()
    delay = slot.backoff.next()
    slot.due = time.monotonic() + delay
    log.error("slot %d ended with %d: again in %.1f s", slot.number, slot.code, delay)
