"""The errors of natslease.testing."""

from __future__ import annotations

from typing import Any, ClassVar

from .._errors import Error


class TestingError(Error, RuntimeError):
    """The base of the errors of natslease.testing."""

    __test__: ClassVar[bool] = False  # pytest takes classes of this name for tests
    code = "testing"


class ServerNotFound(TestingError):
    """There is no nats-server binary; the text says where it was looked for."""


class ServerFailed(TestingError):
    """A nats-server did not start, did not end or did not answer.

    Attributes:
        log: what the server has written.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(f"{message}; its log:\n{log}" if log else message)
        self._message = message
        self.log = log

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._message, self.log)
