"""How a worker ends, for whoever starts it again."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import sys

from .._errors import Error, Superseded


class ExitCode(enum.IntEnum):
    """A worker's exit code. 1 is Python's own: an error that nobody has handled."""

    #: It ended as it was asked to, or its source is empty; all that was done is delivered.
    DONE = 0
    #: A newer worker is in its place. It is not to be started again.
    FENCED = 3
    #: It was told to end at once, or its grace was over: what it had in hand was given back.
    RELEASED = 4
    #: The handler gave no sign of life for ``heartbeat_timeout``; its tasks have failed.
    HUNG = 5
    #: The credentials or a permission are refused. Nothing changes by starting it again.
    REFUSED = 6
    #: Results could not be delivered before it ended; their tasks were given back.
    UNDELIVERED = 7
    #: The process that started it is gone; what it had in hand was given back.
    ORPHANED = 8


def exit_code(error: BaseException) -> int:
    """The exit code for an error that ends a worker."""
    from ._source import passes

    if isinstance(error, Superseded):
        return ExitCode.FENCED
    if isinstance(error, Error) and not passes(error):
        return ExitCode.REFUSED
    return 1


def exit_now(code: int) -> None:
    """Ends the process whatever its main thread does."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
