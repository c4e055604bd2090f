"""Leases outside the process that took them: as signed strings, and in Celery's messages."""

from __future__ import annotations

import hmac
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from hashlib import sha256
from time import time
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils.encoding import force_bytes

import natslease
from natslease.contrib._acksubjects import (
    ATTEMPT,
    CONSUMER,
    PUBLISHED,
    SEQ,
    STREAM,
    parts_of,
)

from . import _settings
from ._clients import clients

if TYPE_CHECKING:
    from natslease import AsyncLease, AsyncQueue, Lease, Queue

    AnyLease = Lease | AsyncLease
    AnyQueue = Queue | AsyncQueue

_SALT = "natslease.lease."
_RAW = "$JS.ACK."
# base64 of the longest ack subject, and room for the signature; more is not even looked at.
_MAX_LENGTH = 2_000
_NS = 1_000_000_000


@dataclass(frozen=True)
class LeaseRef:
    """A lease as other processes may know it: its ack subject was made by a server, or checked.

    Attributes:
        ack_subject: what it is settled by.
        alias: of the client (``settings.NATSLEASE``).
    """

    ack_subject: str
    alias: str = _settings.DEFAULT_ALIAS

    @classmethod
    def of(cls, lease: AnyLease, alias: str = _settings.DEFAULT_ALIAS) -> LeaseRef:
        """That of a lease at hand."""
        return cls(lease.ack_subject, alias)

    @classmethod
    def parse(cls, raw: str, queue: AnyQueue, alias: str = _settings.DEFAULT_ALIAS) -> LeaseRef:
        """That of an ack subject from outside.

        Raises:
            InvalidLease: it is none, or not of this queue.
        """
        said = natslease.parse_ack_subject(raw)
        _check_queue(said.stream, said.consumer, queue)
        return cls(raw, alias)

    @classmethod
    def from_dict(cls, message: dict[str, str]) -> LeaseRef:
        """What ``to_dict`` has made. It is not checked: only for messages of the site's own."""
        return cls(message["ack_subject"], message.get("alias", _settings.DEFAULT_ALIAS))

    def to_dict(self) -> dict[str, str]:
        """For a message in JSON: the ack subject with the queue that it was checked against."""
        return {
            "ack_subject": self.ack_subject,
            "alias": self.alias,
            "consumer": self.consumer,
            "stream": self.stream,
        }

    @property
    def stream(self) -> str:
        """The stream's name."""
        return parts_of(self.ack_subject)[STREAM]

    @property
    def consumer(self) -> str:
        """The consumer's name."""
        return parts_of(self.ack_subject)[CONSUMER]

    @property
    def attempt(self) -> int:
        """How often the task had been given out, this delivery included."""
        return int(parts_of(self.ack_subject)[ATTEMPT])

    @property
    def seq(self) -> int:
        """The task's sequence in the stream."""
        return int(parts_of(self.ack_subject)[SEQ])

    @property
    def published(self) -> int:
        """When the task was published, in nanoseconds since 1970."""
        return int(parts_of(self.ack_subject)[PUBLISHED])

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Names the task, whichever delivery of it this is: stream, consumer, published, seq."""
        return self.stream, self.consumer, self.published, self.seq

    def queue(self, **options: Any) -> Queue:
        """The queue that the lease is of.

        Args:
            options: as of ``Client.queue``.
        """
        letters = _settings.options_of(self.alias).get("DEAD_LETTERS")
        if letters and self.stream != letters:
            options.setdefault("dead_letters", letters)
        return clients[self.alias].queue(self.stream, consumer=self.consumer, **options)


def emit_lease(lease: AnyLease | LeaseRef, alias: str = _settings.DEFAULT_ALIAS) -> str:
    """The string that HTTP clients get for a lease, as ``NATSLEASE_HTTP["EMIT_LEASES"]`` says:
    "signed" or "raw", which is the ack subject itself."""
    if isinstance(lease, LeaseRef):
        alias = lease.alias
    if _settings.http("EMIT_LEASES") == "raw":
        return lease.ack_subject
    return sign(lease.ack_subject, alias)


def accept_lease(
    text: str,
    queue: AnyQueue | None,
    *,
    alias: str = _settings.DEFAULT_ALIAS,
    max_age: float | None = None,
) -> LeaseRef:
    """Reads the string that an HTTP client sends for a lease.

    Accepted is what ``NATSLEASE_HTTP["ACCEPT_LEASES"]`` lists: "signed", "raw" or both.

    Args:
        queue: what the lease must be of. None: of any queue, for signed strings only; the caller
            looks at ``stream`` and ``consumer`` of what is returned.
        max_age: seconds for which the stream keeps messages; left out, without end.

    Raises:
        InvalidLease: it was not made here, or is of another queue.
        LeaseGone: the stream has forgotten the task.
    """
    accepted = _settings.http("ACCEPT_LEASES")
    if not isinstance(text, str):
        raise _invalid(f"a lease is a string, not {type(text).__name__}")
    if text.startswith(_RAW):
        if "raw" not in accepted:
            raise _invalid("ack subjects are not accepted here: send back what came with the task")
        if queue is None:
            raise _invalid("an ack subject is accepted only where its queue is known")
        ref = LeaseRef.parse(text, queue, alias)
    elif "signed" in accepted:
        ref = LeaseRef(unsign(text, alias), alias)
        if queue is not None:
            parts = parts_of(ref.ack_subject)
            _check_queue(parts[STREAM], parts[CONSUMER], queue)
    else:
        raise _invalid("signed leases are not accepted here")
    if max_age is not None and ref.published / _NS + max_age < time():
        raise natslease.LeaseGone(
            f"the task is older than {max_age:g} s, which is how long the queue keeps tasks",
            outcome="rejected",
            operation="settle",
        )
    return ref


def _check_queue(stream: str, consumer: str, queue: AnyQueue) -> None:
    if (stream, consumer) != (queue.stream, queue.consumer):
        raise _invalid(f"it is not a lease of the queue {queue.stream}")


def _invalid(text: str) -> natslease.InvalidLease:
    return natslease.InvalidLease(text, outcome="rejected", operation="settle")


# Signing as django.core.signing.Signer(salt="natslease.lease.<alias>") does it, over the ack
# subject in base64; but Signer derives its key anew each time, which is most of its work.

# URL-safe base64 without padding. The functions of the module base64 take twice as long.
_TO_SAFE = bytes.maketrans(b"+/", b"-_")
_FROM_SAFE = bytes.maketrans(b"-_", b"+/")

_keys: dict[str, list[hmac.HMAC]] = {}
_settings.on_change(_keys.clear)


def _keyed(alias: str) -> list[hmac.HMAC]:
    found = _keys.get(alias)
    if found is None:
        salt = f"{_SALT}{alias}signer".encode()
        found = _keys[alias] = [
            hmac.new(sha256(salt + force_bytes(secret)).digest(), digestmod="sha256")
            for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
        ]
    return found


def _encoded(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(_TO_SAFE).rstrip(b"=")


def _signature(key: hmac.HMAC, value: bytes) -> bytes:
    keyed = key.copy()
    keyed.update(value)
    return _encoded(keyed.digest())


def sign(ack_subject: str, alias: str) -> str:
    """A string that only this site can have made."""
    value = _encoded(ack_subject.encode())
    return (value + b":" + _signature(_keyed(alias)[0], value)).decode()


def unsign(text: str, alias: str) -> str:
    """What was signed with one of the site's keys.

    Raises:
        InvalidLease: it was not.
    """
    value, found, signature = text.partition(":")
    if not found or len(text) > _MAX_LENGTH or not text.isascii():
        raise _invalid("it is no lease")
    signed, expected = value.encode(), signature.encode()
    for key in _keyed(alias):
        if hmac.compare_digest(_signature(key, signed), expected):
            return a2b_base64(signed.translate(_FROM_SAFE) + b"==").decode()
    raise _invalid("its signature is wrong")
