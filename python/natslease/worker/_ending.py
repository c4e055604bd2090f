"""How what reserves in this process ends: drained, or at once."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from .._errors import Error, Superseded
from ._custody import Custody
from ._exit import ExitCode, exit_now
from ._watch import Watch

log = logging.getLogger("natslease.worker")

# What an end at once may take: giving back, and delivering what is finished.
_AT_ONCE = 8.0
# How long the main thread may take to come out after it was interrupted.
_COME_OUT = 2.0


class Abandoned(BaseException):
    """Raised in the main thread when its tasks were given back. Not an Exception: it is to pass
    through.
    """


class Ending:
    """Decides when and how it ends. It goes through these states, and may skip some:

        running
        draining    (SIGTERM, asked to, the source is empty) no more is reserved; what is handled is
                    finished, and delivered, within ``grace``
        abandoning  (second SIGTERM, grace over, fenced, hung, orphaned) what is not finished is
                    given back at once, what is finished is delivered
        ended       ``finish`` has returned; or the process has ended with its exit code, because
                    the main thread could not be interrupted

    A watch of its own does what the main thread, which may be busy, cannot.
    """

    def __init__(
        self,
        name: str,
        custody: Custody,
        grace: float,
        *,
        drained: Callable[[], None] = lambda: None,
        hung: Callable[[], str] = lambda: "",
        patience: float = 0.0,
    ) -> None:
        """
        Args:
            name: for the log.
            custody: what is given back.
            grace: seconds for what is handled when it drains.
            drained: is called when draining begins, from any thread.
            hung: says why what handles tasks counts as hung, or "".
            patience: seconds that the main thread may take to come out when it is not busy.
        """
        self._name = name
        self._custody = custody
        self._grace = grace
        self._drained = drained
        self._hung = hung
        self._patience = patience
        self._watch = Watch(
            signalled=self._on_signal, orphaned=self._on_orphaned, tick=self._look_at_clocks
        )
        self._lock = threading.RLock()
        self._abandoned = threading.Event()  # set once all is given back
        self._ended = threading.Event()
        self._signals = 0
        self._deadline: float | None = None  # the grace's end, on the monotonic clock
        self._in_main = False
        #: Set when no more is to be reserved.
        self.draining = threading.Event()
        #: Whether the main thread handles tasks, so that it may be interrupted.
        self.busy = False
        #: After which error there is no going on.
        self.lost: Error | None = None
        #: Why it ends early.
        self.code: ExitCode | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Signals end it, within the block, if this is the main thread."""
        self._in_main = threading.current_thread() is threading.main_thread()
        with self._watch.running(self._python_handler if self._in_main else None):
            yield

    def lose(self, error: Error) -> None:
        """The source is of no use any more. May be called by a thread that ends with the custody:
        the watch does the rest."""
        with self._lock:
            if self.lost is None:
                self.lost = error
                log.error("%s: %s", self._name, error)
        self.draining.set()
        self._watch.wake()

    def drain(self, why: str) -> None:
        with self._lock:
            if self._deadline is not None:
                return
            self._deadline = time.monotonic() + self._grace
            self.draining.set()
        log.info("%s: drains: %s", self._name, why)
        self._drained()

    def abandon(self, code: ExitCode, why: str) -> None:
        """Gives everything back at once, then gets the main thread out of what it does."""
        with self._lock:
            if self.code is not None or self._ended.is_set():
                return
            self.code = code
        self.drain(why)
        log.warning("%s: ends at once: %s", self._name, why)
        self._custody.close(time.monotonic() + _AT_ONCE)
        self._abandoned.set()
        if not self._in_main or threading.current_thread() is threading.main_thread():
            return
        patience = _COME_OUT
        if self.busy:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        else:
            patience += self._patience
        if not self._ended.wait(patience):
            log.error("%s: the main thread cannot be interrupted: exits", self._name)
            exit_now(code)

    def finish(self) -> ExitCode:
        """Delivers what is finished, gives back the rest, and says how it has ended."""
        self.drain("the work is over")
        if self.lost is not None:
            self.abandon(_code_of(self.lost), str(self.lost))
        undelivered = 0
        if self.code is None:
            assert self._deadline is not None
            undelivered = self._custody.close(self._deadline)
        else:
            self._abandoned.wait(_AT_ONCE * 2)
        with self._lock:
            self._ended.set()
            code = self.code
        if code is None:
            code = ExitCode.UNDELIVERED if undelivered else ExitCode.DONE
        log.info("%s: ended: %s", self._name, code.name.lower())
        return code

    def _python_handler(self, number: int, frame: FrameType | None) -> None:
        """Runs in the main thread. What is to be done for a signal, the watch does."""
        if self.busy and self._abandoned.is_set():
            raise Abandoned

    def _on_signal(self, number: int) -> None:
        if self._abandoned.is_set():
            return  # our own, see abandon
        self._signals += 1
        name = signal.Signals(number).name
        if self._signals == 1:
            self.drain(name)
        else:
            self.abandon(ExitCode.RELEASED, f"a second {name}")

    def _on_orphaned(self) -> None:
        self.abandon(ExitCode.ORPHANED, "the process that started it is gone")

    def _look_at_clocks(self) -> None:
        if self.lost is not None:
            self.abandon(_code_of(self.lost), str(self.lost))
        elif not self.busy:
            return
        elif self._deadline is not None and time.monotonic() > self._deadline:
            self.abandon(ExitCode.RELEASED, f"its grace of {self._grace:g} s is over")
        elif why := self._hung():
            self._custody.fail_handed(why)
            self.abandon(ExitCode.HUNG, why)


def _code_of(error: Error) -> ExitCode:
    return ExitCode.FENCED if isinstance(error, Superseded) else ExitCode.REFUSED
