"""What is asked of the core, described once for the synchronous and the asynchronous API."""

from __future__ import annotations

from math import isfinite

from . import _wire
from ._errors import ConfigError, Error
from ._typing import Generic, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from ._native import Export, Native

T = TypeVar("T")

# How long one call into the core may last: Python handles signals only in between.
SLICE = 50_000_000

_NS = 1_000_000_000


class Operation(Generic[T]):
    """One call of the core: what is asked and how its answer is read.

    ``give_back`` is for an answer that has leases. They stay the core's until they are taken; if
    the call is interrupted after that, nobody else can give them back.
    """

    __slots__ = ("arguments", "body", "export", "give_back", "native", "read", "timeout")

    def __init__(
        self,
        native: Native,
        export: Export,
        arguments: tuple[int, ...],
        timeout: int,
        read: Callable[[bytes], T],
        body: bytes | None = None,
        give_back: Callable[[bytes], None] | None = None,
    ) -> None:
        self.native = native
        self.export = export
        self.arguments = arguments
        self.timeout = timeout
        self.read = read
        self.body = body
        self.give_back = give_back

    def start(self, ticket: int, slice_: int, notifier: int) -> bytes:
        """Starts it, and returns its answer or that it is pending."""
        if self.body is None:
            return self.export(ticket, self.timeout, slice_, notifier, *self.arguments)
        return self.export(ticket, self.timeout, slice_, notifier, *self.arguments, self.body)

    def conclude(self, ticket: int, answer: bytes) -> T:
        """Reads the answer."""
        status = answer[0]
        if status & _wire.LOGS:
            from ._logs import hand_over

            hand_over(self.native)
        if status & ~_wire.LOGS:
            raise _wire.read_error(answer)
        result = self.read(answer)
        if result and self.give_back is not None:
            self.native.taken(ticket)
        return result

    def abandon(self, ticket: int, answer: bytes | None) -> None:
        """Ends it after its call was interrupted, or has failed."""
        if self.native.cancel(ticket) or self.give_back is None or not answer:
            return
        if answer[0] & ~_wire.LOGS == _wire.DONE:
            self.give_back(answer)


def run(operation: Operation[T]) -> T:
    """Runs an operation in this thread. It can be interrupted by signals."""
    native = operation.native
    ticket = next(native.numbers)
    answer = None
    try:
        answer = operation.start(ticket, SLICE, 0)
        if answer[0] == _wire.DONE:  # as a rule: without a detour
            result = operation.read(answer)
            if result and operation.give_back is not None:
                native.taken(ticket)
            return result
        while answer[0] == _wire.PENDING:
            answer = native.wait(ticket, SLICE)
        return operation.conclude(ticket, answer)
    except BaseException:
        operation.abandon(ticket, answer)
        raise


class Running(Generic[T]):
    """An operation that has a ticket.

    It is made before the operation is started: a call that is interrupted meanwhile can abandon it.
    """

    __slots__ = ("answer", "notifier", "operation", "ticket", "waiter")

    def __init__(self, operation: Operation[T]) -> None:
        self.operation = operation
        self.ticket = next(operation.native.numbers)
        self.answer: bytes | None = None
        self.notifier: Any = None  # an event loop's
        self.waiter: Any = None  # its future

    def abandon(self) -> None:
        """Gives it up."""
        self.operation.abandon(self.ticket, self.answer)


if TYPE_CHECKING:
    # A call that needs several operations. It yields one to have it started, for which it gets a
    # Running, and that to have it waited for, for which it gets the result, or the error.
    Call = Generator[Operation[Any] | Running[Any], Any, T]


def finish(running: Running[T]) -> T:
    """Waits for an operation."""
    native = running.operation.native
    while running.answer is None or running.answer[0] == _wire.PENDING:
        running.answer = native.wait(running.ticket, SLICE)
    return running.operation.conclude(running.ticket, running.answer)


def run_call(call: Call[T]) -> T:
    """Runs a call in this thread."""
    running: Running[Any] | None = None
    outcome: Any = None
    try:
        while True:
            step = call.send(outcome)
            if isinstance(step, Operation):
                outcome = running = Running(step)
                running.answer = step.start(running.ticket, 1, 0)
                continue
            try:
                outcome = finish(step)
            except Error as error:
                outcome = error
    except StopIteration as stop:
        value: T = stop.value
        return value
    except BaseException:
        if running is not None:
            running.abandon()
        raise


def duration(name: str, value: float, *, zero: bool = False) -> int:
    """Checks a time in seconds and returns it in nanoseconds."""
    if value.__class__ is float and 1e-9 < value < 1e9:
        return int(value * _NS)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: is {type(value).__name__}: give seconds as a number")
    if not isfinite(value) or value < 0 or (value == 0 and not zero):
        least = "not be negative" if zero else "be positive"
        raise ConfigError(f"{name}: is {value!r}: it must {least}", outcome="rejected")
    return max(round(value * _NS), 0 if value == 0 else 1)
