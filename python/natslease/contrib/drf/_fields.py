"""A lease in a serializer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rest_framework import serializers

import natslease
from natslease.contrib.django import LeaseRef, accept_lease, emit_lease


class LeaseField(serializers.Field):  # type: ignore[type-arg]
    """A lease as a string that HTTP clients send back as it is; for Python a ``LeaseRef``.

    What the strings look like is said by ``NATSLEASE_HTTP``: ``EMIT_LEASES`` and ``ACCEPT_LEASES``.
    """

    default_error_messages = {  # noqa: RUF012 (as in its base)
        "invalid": "Not a lease of this queue.",
        "gone": "The queue has forgotten this task.",
    }

    def __init__(
        self,
        *,
        queue: natslease.Queue | Callable[[LeaseField], natslease.Queue | None] | None = None,
        alias: str = "default",
        max_age: float | None = None,
        **options: Any,
    ) -> None:
        """A field.

        Args:
            queue: what leases must be of, or a function of the field that returns it; left out,
                what the serializer's context has under "queue". Without any, signed leases of any
                queue are accepted.
            alias: of the client.
            max_age: seconds for which the queue's stream keeps messages; older leases are gone.
            options: those of every field.
        """
        super().__init__(**options)
        self._queue = queue
        self._alias = alias
        self._max_age = max_age

    def to_internal_value(self, data: Any) -> LeaseRef:
        """The lease that a client has sent.

        Raises:
            ValidationError: it is none of this queue ("invalid"), or too old ("gone").
        """
        queue = self._queue
        if queue is None:
            queue = self.context.get("queue")
        elif not isinstance(queue, natslease.Queue):
            queue = queue(self)
        try:
            return accept_lease(data, queue, alias=self._alias, max_age=self._max_age)
        except natslease.InvalidLease:
            self.fail("invalid")
        except natslease.LeaseGone:
            self.fail("gone")

    def to_representation(self, value: natslease.Lease | LeaseRef) -> str:
        """The string for a lease."""
        return emit_lease(value, self._alias)
