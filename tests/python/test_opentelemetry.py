"""The trace of who publishes goes on where the task is done."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import natslease
from natslease.contrib.opentelemetry import processing, publishing


@pytest.fixture
def queue(nats_url: str) -> natslease.Queue:
    queue = natslease.Client(nats_url).queue("images")
    queue.ensure()
    return queue


def test_one_trace_from_publisher_to_worker(queue: natslease.Queue) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("request"):
        named = natslease.Message(b"2", id="two", headers={"Kind": "image"})
        queue.publish(publishing(queue, [b"1", named], tracer_provider=provider))
    first, second = queue.reserve(2)
    assert second.headers["Kind"] == "image"
    with processing(first, tracer_provider=provider), first:
        assert trace.get_current_span().is_recording()
    failure = RuntimeError("no such image")
    with pytest.raises(RuntimeError), processing(second, tracer_provider=provider), second:
        raise failure

    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == [
        "send images",
        "send images",
        "request",
        "process images",
        "process images",
    ]
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    for sent, processed in zip(spans[:2], spans[3:], strict=True):
        assert processed.parent is not None
        assert sent.context is not None
        assert processed.parent.span_id == sent.context.span_id
    attributes = dict(spans[4].attributes or {})
    assert attributes["messaging.message.id"] == "two"
    assert attributes["messaging.destination.name"] == "images"
    assert not spans[4].status.is_ok
    assert "messaging.message.id" not in (spans[0].attributes or {})


def test_a_task_without_a_trace(queue: natslease.Queue) -> None:
    queue.publish([b"1"])
    (lease,) = queue.reserve(1)
    with processing(lease) as span, lease:
        assert not span.is_recording()  # nothing is set up
    assert lease.settled
