"""Where tasks come from, and where their results go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .._errors import Error
from ._task import Batch, Outcome, Status, Task


class Source(Protocol):
    """Where tasks come from, and where their results go.

    ``reserve`` is called by one thread, ``settle`` and ``release`` by others beside it, ``beat`` by
    a third. Every call returns in bounded time. Errors are natslease's: ``Unavailable`` and
    ``DeadlineExceeded`` pass, ``Superseded`` ends the worker, the others need somebody's attention.
    """

    #: How the worker is called in logs.
    name: str
    #: Whether a task is done only when the handler has made a result of it.
    needs_result: bool
    #: Seconds that a lease lasts; None until that is known.
    ack_wait: float | None

    def open(self) -> None:
        """Makes the worker known, after which older ones in its place are fenced."""

    def reserve(self, n: int, wait: float) -> Batch:
        """Takes up to n tasks; waits up to ``wait`` seconds for the first."""

    def settle(self, outcomes: Sequence[Outcome]) -> list[Status]:
        """Says what came of tasks; a status for each."""

    def release(self, tasks: Sequence[Task]) -> None:
        """Gives back tasks that were not started, or not finished."""

    def keep(self, tasks: Sequence[Task], max_hold: float) -> None:
        """From now on their leases are extended. Sends nothing."""

    def unkeep(self, tasks: Sequence[Task]) -> None:
        """Their leases run out as they would have. Sends nothing."""

    def beat(self) -> float:
        """Does what is due: a sign of life, extensions. Returns seconds until it is to be called
        again."""

    def close(self) -> None:
        """The worker is gone."""


def passes(error: Error) -> bool:
    """Whether an error is one that passes, so that it makes sense to go on trying."""
    from .._errors import (
        AuthenticationFailed,
        ClientClosed,
        ConfigError,
        PermissionDenied,
        Superseded,
    )

    return not isinstance(
        error, (AuthenticationFailed, ClientClosed, ConfigError, PermissionDenied, Superseded)
    )


def listed(tasks: Sequence[Task] | Sequence[Outcome], most: int = 20) -> str:
    """Tasks by their ids, for a line of the log."""
    ids: list[Any] = [item if isinstance(item, Task) else item.task for item in tasks[:most]]
    text = ", ".join(task.id or task.key for task in ids)
    return f"{text}, ..." if len(tasks) > most else text
