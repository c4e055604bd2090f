"""Spans of who publishes and who works.

The names are those of https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate, trace

import natslease

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

    AnyQueue = natslease.Queue | natslease.AsyncQueue
    AnyLease = natslease.Lease | natslease.AsyncLease

_NAME = "natslease"


def _attributes(queue: AnyQueue, operation: str, kind: str) -> dict[str, Any]:
    return {
        "messaging.system": "nats",
        "messaging.destination.name": queue.stream,
        "messaging.destination.template": queue.subject,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
    }


def publishing(
    queue: AnyQueue,
    messages: Iterable[bytes | natslease.Message],
    *,
    tracer_provider: TracerProvider | None = None,
) -> list[natslease.Message]:
    """The messages with the current trace in their headers, each with a span of its own.

    Args:
        queue: where they will be published.
        messages: as ``Queue.publish`` takes them.
        tracer_provider: left out, the global one.
    """
    tracer = trace.get_tracer(_NAME, natslease.__version__, tracer_provider)
    common = _attributes(queue, "send", "send")
    carried = []
    for item in messages:
        message = item if isinstance(item, natslease.Message) else natslease.Message(item)
        headers: dict[str, Any] = dict(message.headers or {})
        attributes = {**common, "messaging.message.body.size": len(message.data)}
        if message.id is not None:
            attributes["messaging.message.id"] = message.id
        with tracer.start_as_current_span(
            f"send {queue.stream}", kind=trace.SpanKind.PRODUCER, attributes=attributes
        ):
            propagate.inject(headers)
        carried.append(natslease.Message(message.data, id=message.id, headers=headers))
    return carried


@contextmanager
def processing(lease: AnyLease, *, tracer_provider: TracerProvider | None = None) -> Iterator[Span]:
    """A span for the work on a task, in the trace of who has published it.

    It has to be around the lease's own ``with``, to see what settling raises as well.
    """
    tracer = trace.get_tracer(_NAME, natslease.__version__, tracer_provider)
    queue: AnyQueue = lease.queue
    attributes = {
        **_attributes(queue, "process", "process"),
        "messaging.consumer.group.name": queue.consumer,
        "messaging.message.id": lease.id,
        "messaging.message.body.size": len(lease.data),
        "natslease.attempt": lease.attempt,
    }
    with tracer.start_as_current_span(
        f"process {queue.stream}",
        context=propagate.extract(lease.headers),
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
    ) as span:
        yield span
