"""What a fault does to a row: its broker stands still or is gone, a worker is killed, a fork."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from speaker import Speaker

from .brokers import Brokers
from .measure import Place, ask, kill
from .rows import Row
from .setting import HELD

CONNECTED, FROZEN, REFUSED = CASES = ("connected, then frozen", "frozen", "refused")
TIMEOUT = 2  # seconds, where a peer has an option for it
LEASE = 5  # seconds, likewise
_MANY = 100  # tasks of a process and of its child


def blocked(brokers: Brokers, rows: Sequence[Row], cap: float) -> dict[str, Any]:
    """How long one call to enqueue takes, by row, case and timeout, all at the same time.

    Each is {"took": seconds, "error": what was raised}; who has not returned within the cap is
    {"took": cap, "error": None}.
    """
    with ExitStack() as stack:
        nobody = stack.enter_context(socket.socket())
        nobody.bind(("127.0.0.1", 0))
        calls: list[tuple[Row, str, int, Speaker]] = []
        for row in rows:
            for case in CASES:
                for timeout in (0, TIMEOUT):
                    url = ""
                    if case == REFUSED:
                        url = brokers.refusing(row.broker, nobody.getsockname()[1])
                    place = stack.enter_context(Place(brokers, row, url, timeout=timeout))
                    clerk = place.clerk()
                    clerk.tell(op="prepare" if case == CONNECTED else "ready")
                    calls.append((row, case, timeout, clerk))
        for row, case, _, clerk in calls:
            clerk.hear(60)
            if case == CONNECTED and (failed := ask(clerk, "call", number=0)["error"]):
                raise RuntimeError(f"{row.name}: {failed} of a broker that works")
        with brokers.frozen():
            until = time.monotonic() + cap
            for *_, clerk in calls:
                clerk.tell(op="call", number=2)
            found: dict[str, Any] = {}
            for row, case, timeout, clerk in calls:
                answer = _heard(clerk, until - time.monotonic(), cap)
                found.setdefault(row.name, {}).setdefault(case, {})[str(timeout)] = answer
            for *_, clerk in calls:
                clerk.kill()
    return found


def _heard(clerk: Speaker, timeout: float, cap: float) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = clerk.hear(max(timeout, 0))
    except TimeoutError:
        return {"took": cap, "error": None}
    return answer


def killed(brokers: Brokers, rows: Sequence[Row], cap: float) -> dict[str, dict[str, float | None]]:
    """After how many seconds another worker gets the task of one that was killed; None: not within
    the cap. By row, and whether it is by default or with a LEASE."""
    with ThreadPoolExecutor(2 * len(rows)) as pool:
        ways = {"default": 0, "lease": LEASE}
        found = {
            row.name: {
                way: pool.submit(_redelivered, brokers, row, lease, cap)
                for way, lease in ways.items()
            }
            for row in rows
        }
        return {
            name: {way: future.result() for way, future in futures.items()}
            for name, futures in found.items()
        }


def _redelivered(brokers: Brokers, row: Row, lease: int, cap: float) -> float | None:
    with Place(brokers, row, lease=lease, hold=True) as place, ExitStack() as stack:
        clerk = place.clerk()
        ask(clerk, "prepare")
        workers = {mark: stack.enter_context(place.worker(mark=mark)) for mark in (1, 2)}
        seen: set[int] = set()
        number, until = HELD, time.monotonic() + 60
        while seen != set(workers):
            if time.monotonic() > until:
                raise RuntimeError(f"{row.name}: workers {seen} of {set(workers)} take tasks")
            number += 1
            ask(clerk, "call", number=number)
            while taken := place.taken.next(0.2):
                seen.add(taken.mark)
        ask(clerk, "call", number=HELD)
        while (first := place.taken.next(60)) and first.number != HELD:
            """One of those before, late."""
        if first is None:
            raise RuntimeError(f"{row.name}: the task was not taken")
        kill(workers[first.mark])
        until = time.monotonic() + cap
        while (left := until - time.monotonic()) > 0:
            if (again := place.taken.next(left)) and again.number == HELD:
                return (again.taken - first.taken) / 1e9
        return None


def forked(brokers: Brokers, rows: Sequence[Row]) -> dict[str, str]:
    """Whether a process that has enqueued can be forked, by row: "yes", or what happens."""
    with ThreadPoolExecutor(2) as pool:
        names = [row.name for row in rows]
        answers = pool.map(lambda row: _forked(brokers, row), rows)
        return dict(zip(names, answers, strict=True))


def _forked(brokers: Brokers, row: Row) -> str:
    with Place(brokers, row) as place:
        clerk = place.clerk()
        ask(clerk, "prepare")
        try:
            answer: str = ask(clerk, "fork", count=_MANY)
        except RuntimeError:
            return "no: the parent hangs"
        if answer == "yes" and (left := ask(place.clerk(), "left")) != 1 + 2 * _MANY:
            return f"no: {left} of {1 + 2 * _MANY} tasks are there"
        return answer
