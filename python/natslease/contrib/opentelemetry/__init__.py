"""Trace context in message headers, by OpenTelemetry's messaging conventions.

Needs the extra ``opentelemetry``.

>>> queue.publish(publishing(queue, [b"..."]))     # spans "send images"
>>> for lease in queue.reserve(64):
...     with processing(lease), lease:             # a span "process images" in the sender's trace
...         work(lease.data)
"""

from __future__ import annotations

from ._spans import processing, publishing

__all__ = ["processing", "publishing"]
