"""The errors of natslease.testing."""

from __future__ import annotations

from typing import ClassVar


class TestingError(RuntimeError):
    """The base of the errors of natslease.testing."""

    __test__: ClassVar[bool] = False  # pytest takes classes of this name for tests


class ServerNotFound(TestingError):
    """There is no nats-server binary; the text says where it was looked for."""


class ServerFailed(TestingError):
    """A nats-server did not start, did not end or did not answer.

    Attributes:
        log: what the server has written.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message, log)
        self.log = log

    def __str__(self) -> str:
        return f"{self.args[0]}; its log:\n{self.log}" if self.log else str(self.args[0])
