"""The errors of natslease."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    Outcome = Literal["not_sent", "unknown", "rejected"]


class Error(Exception):
    """The base of all errors of natslease. All of them can be pickled.

    Attributes:
        code: names the kind of failure; stable, and the same in Go.
        outcome: ``"not_sent"``: nothing reached the server, it is safe to retry; ``"unknown"``: it
            may have happened; ``"rejected"``: it was refused, and trying the same again is useless.
        operation: what was being done: ``"reserve"``, ``"ack"``, ...
        retry_after: seconds after which it makes sense to try again; 0.0 when nothing is known.
    """

    code: str = "internal"
    outcome: Outcome
    operation: str
    retry_after: float

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        outcome: Outcome = "not_sent",
        operation: str = "",
        retry_after: float = 0.0,
        explanation: str = "",
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.outcome = outcome
        self.operation = operation
        self.retry_after = retry_after
        self._explanation = explanation

    def explain(self) -> str:
        """Tells what happened, and what the connection went through just before, with times."""
        return self._explanation or str(self)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {
            "code": self.code,
            "outcome": self.outcome,
            "operation": self.operation,
            "retry_after": self.retry_after,
            "explanation": self._explanation,
        }
        return _rebuild, (type(self), str(self), state)


def _rebuild(kind: type[Error], message: str, state: dict[str, Any]) -> Error:
    return kind(message, **state)


class ConfigError(Error, ValueError):
    """An option or argument is wrong; the text names it. Nothing was sent."""

    code = "config"


class InvalidLease(Error, ValueError):
    """That is not a lease of this queue. Nothing was sent."""

    code = "invalid_lease"


class PayloadTooLarge(Error, ValueError):
    """The message is larger than the server, or the stream, accepts. Nothing was sent."""

    code = "payload_too_large"


class Unavailable(Error, ConnectionError):
    """It does not work now and may work later. The base of the errors that pass."""

    code = "unavailable"


class ConnectFailed(Unavailable):
    """No server could be reached."""

    code = "connect_failed"


class ConnectionLost(Unavailable):
    """The connection died under the call. The next call opens another."""

    code = "connection_lost"


class QueueUnavailable(Unavailable):
    """The queue has no leader, or JetStream is off."""

    code = "queue_unavailable"


class CircuitOpen(Unavailable):
    """The connection failed several times in a row: nothing was tried. See ``retry_after``."""

    code = "circuit_open"


class Busy(Unavailable):
    """This process has too many calls in flight, or the consumer too many waiting pulls.

    See ``retry_after``.
    """

    code = "busy"


class Saturated(Unavailable):
    """The consumer's ``max_ack_pending`` is reached.

    There may be tasks, but leases must be settled first.
    """

    code = "saturated"


class DeadlineExceeded(Error, TimeoutError):
    """The call's time ran out."""

    code = "deadline_exceeded"


class StorageFull(Error, OSError):
    """The stream, the account or the server has no room."""

    code = "storage_full"


class QueueNotFound(Error, LookupError):
    """The stream or the consumer does not exist; the server has said so."""

    code = "queue_not_found"


class LeaseGone(Error):
    """The lease's stream or consumer no longer exists; the server has said so."""

    code = "lease_gone"


class LeaseExpired(Error):
    """The lease ran out: the task may be somebody else's now. Nothing was sent."""

    code = "lease_expired"


class Superseded(Error):
    """A newer worker has taken this worker's place."""

    code = "superseded"


class ServerError(Error):
    """The server refused for another reason, which the text quotes."""

    code = "server_error"


class PermissionDenied(Error):
    """The server's permissions forbid it. Not an OSError: it does not pass by itself."""

    code = "permission_denied"


class AuthenticationFailed(Error):
    """The server does not accept the credentials. Not an OSError: it does not pass by itself."""

    code = "authentication_failed"


class ClientClosed(Error):
    """The client was closed: make another."""

    code = "client_closed"


class NotLoaded(Error, ImportError):
    """The compiled part of natslease cannot be loaded into this process."""

    code = "not_loaded"


_BY_CODE: dict[str, type[Error]] = {
    kind.code: kind
    for kind in (
        AuthenticationFailed,
        Busy,
        CircuitOpen,
        ClientClosed,
        ConfigError,
        ConnectFailed,
        ConnectionLost,
        DeadlineExceeded,
        InvalidLease,
        LeaseExpired,
        LeaseGone,
        PayloadTooLarge,
        PermissionDenied,
        QueueNotFound,
        QueueUnavailable,
        Saturated,
        ServerError,
        StorageFull,
        Superseded,
    )
}


def from_description(description: dict[str, Any]) -> Error:
    """The error that the core describes."""
    code = description["code"]
    kind = _BY_CODE.get(code, Error)
    return kind(
        description["message"],
        code=code,
        outcome=description["outcome"],
        operation=description["operation"],
        retry_after=description["retry_after"],
        explanation=description["explain"],
    )
