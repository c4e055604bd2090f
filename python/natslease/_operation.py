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
        native = self.native
        arguments = self.arguments
        if self.body is not None:
            arguments = (*arguments, native.from_bytes(self.body))
        return native.to_bytes(self.export(ticket, self.timeout, slice_, notifier, *arguments))

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
    ticket = next(native.tickets)
    answer = None
    try:
        answer = operation.start(ticket, SLICE, 0)
        while answer[0] == _wire.PENDING:
            answer = native.to_bytes(native.wait(ticket, SLICE))
        return operation.conclude(ticket, answer)
    except BaseException:
        operation.abandon(ticket, answer)
        raise


def duration(name: str, value: float, *, zero: bool = False) -> int:
    """Checks a time in seconds and returns it in nanoseconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: is {type(value).__name__}: give seconds as a number")
    if not isfinite(value) or value < 0 or (value == 0 and not zero):
        least = "not be negative" if zero else "be positive"
        raise ConfigError(f"{name}: is {value!r}: it must {least}", outcome="rejected")
    return max(round(value * _NS), 0 if value == 0 else 1)


class Steps(Generic[T]):
    """A call that needs several operations, each of which can be started while the one before it runs.

    Iterated over, it yields them; ``done`` takes what came of them, in their order, an error as it is.
    """

    __slots__ = ("_answer", "_call", "result")

    result: T

    def __init__(self, call: Generator[Operation[Any], Any, T]) -> None:
        self._call = call
        self._answer: Any = None

    def __iter__(self) -> Steps[T]:
        return self

    def __next__(self) -> Operation[Any]:
        try:
            return self._call.send(self._answer)
        except StopIteration as stop:
            self.result = stop.value
            raise

    def done(self, answer: Any) -> None:
        self._answer = answer


def run_steps(call: Generator[Operation[Any], Any, T]) -> T:
    """Runs the operations of a call in this thread."""
    steps = Steps(call)
    for operation in steps:
        try:
            steps.done(run(operation))
        except Error as error:  # noqa: PERF203
            steps.done(error)
    return steps.result
