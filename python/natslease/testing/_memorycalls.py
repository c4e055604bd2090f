"""Tickets, waiting and event loops, as the core has them, for queues in memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from natslease import Error

from . import _memorywire as wire
from ._broker import NS


class _Waiting:
    """A call that has no answer yet."""

    __slots__ = ("answer", "attempt", "notifier", "until")

    def __init__(self, attempt: Callable[[bool], bytes | None], until: int, notifier: int) -> None:
        self.attempt = attempt
        self.until = until
        self.notifier = notifier
        self.answer: bytes | None = None


class Calls:
    """The calls under way."""

    def __init__(self) -> None:
        self.failure: Error | None = None
        self._changed = threading.Condition(threading.RLock())
        self._calls: dict[int, _Waiting] = {}
        self._untaken: dict[int, list[dict[str, Any]]] = {}
        self._notifiers: dict[int, tuple[int, int, list[int]]] = {}
        self._thread: threading.Thread | None = None

    def _give_back(self, leases: Sequence[dict[str, Any]]) -> None:
        """Releases what no caller has seen."""
        raise NotImplementedError

    def _answer(self, call: tuple[int, ...], attempt: Callable[[], bytes]) -> bytes:
        """Runs an operation that does not wait."""
        with self._changed:
            try:
                if self.failure is not None:
                    raise self.failure
                answer = attempt()
            except Error as error:
                answer = wire.error(error)
            self._changed.notify_all()
        return answer

    def _await(
        self, call: tuple[int, ...], wait: int, attempt: Callable[[bool], bytes | None]
    ) -> bytes:
        """Runs one that waits; attempt is told when it is the last time."""
        ticket, _timeout, _slice, notifier = call[:4]
        with self._changed:
            waiting = _Waiting(attempt, time.monotonic_ns() + wait, notifier)
            if self._try(waiting):
                assert waiting.answer is not None
                return waiting.answer
            self._calls[ticket] = waiting
            if notifier:
                self._start_thread()
            self._changed.notify_all()
        return wire.pending()

    def _try(self, waiting: _Waiting) -> bool:
        if waiting.answer is None:
            try:
                if self.failure is not None:
                    raise self.failure
                waiting.answer = waiting.attempt(time.monotonic_ns() >= waiting.until)
            except Error as error:
                waiting.answer = wire.error(error)
        return waiting.answer is not None

    def wait(self, ticket: int, slice_: int) -> bytes:
        end = time.monotonic_ns() + slice_
        with self._changed:
            waiting = self._calls.get(ticket)
            if waiting is None:
                return wire.error(Error(f"there is no ticket {ticket}", code="internal"))
            while not self._try(waiting):
                now = time.monotonic_ns()
                if now >= end:
                    return wire.pending()
                self._changed.wait((self._next([waiting], end) - now) / NS)
            del self._calls[ticket]
            assert waiting.answer is not None
            return waiting.answer

    def _next(self, calls: list[_Waiting], end: int) -> int:
        """When to look again at the latest: leases that run out tell nobody."""
        soon = time.monotonic_ns() + NS // 100
        return max(min([end, soon, *(w.until for w in calls)]), time.monotonic_ns())

    def taken(self, ticket: int) -> int:
        with self._changed:
            return 1 if self._untaken.pop(ticket, None) else 0

    def cancel(self, ticket: int) -> int:
        with self._changed:
            found = self._calls.pop(ticket, None)
            leases = self._untaken.pop(ticket, [])
            self._give_back(leases)
            self._changed.notify_all()
        return 1 if found or leases else 0

    # Event loops

    def notifier_open(self, number: int) -> bytes:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._notifiers[number] = (reading, writing, [])
        return wire.numbers(reading)

    def notifier_take(self, number: int, most: int) -> bytes:
        with self._changed:
            reading, _, ready = self._notifiers[number]
            tickets, ready[:] = ready[:most], ready[most:]
            if not ready:
                with suppress(BlockingIOError):
                    os.read(reading, 4096)
            return wire.numbers(*tickets)

    def notifier_close(self, number: int) -> bytes:
        with self._changed:
            for fd in self._notifiers.pop(number, ((), ()))[:2]:
                os.close(fd)  # type: ignore[arg-type]
            self._changed.notify_all()
        return wire.done()

    def _start_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._notify, name="natslease-memory", daemon=True
            )
            self._thread.start()

    def _notify(self) -> None:
        """Tells event loops what is done; ends when no loop waits."""
        with self._changed:
            while True:
                waiting = {t: w for t, w in self._calls.items() if w.notifier and w.answer is None}
                for ticket, call in waiting.items():
                    if self._try(call) and call.notifier in self._notifiers:
                        _, writing, ready = self._notifiers[call.notifier]
                        ready.append(ticket)
                        os.write(writing, b"x")
                left = [w for w in waiting.values() if w.answer is None]
                if not left:
                    self._thread = None
                    return
                now = time.monotonic_ns()
                self._changed.wait((self._next(left, now + NS) - now) / NS)
