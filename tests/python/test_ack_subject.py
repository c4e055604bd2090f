"""Reading ack subjects. What is accepted, and what is not, is tested with the core."""

from __future__ import annotations

from typing import Any

import pytest

import natslease
from natslease import AckSubject, parse_ack_subject


def test_both_forms() -> None:
    short = parse_ack_subject("$JS.ACK.job_8.job-8-consumer.2.17.39.1795000000123456789.4")
    assert short == AckSubject(
        stream="job_8",
        consumer="job-8-consumer",
        attempt=2,
        seq=17,
        consumer_seq=39,
        published=1_795_000_000_123_456_789,
        domain="",
    )
    long = "$JS.ACK.hub.ACCOUNT.job_8.job-8-consumer.2.17.39.1795000000123456789.4.random"
    assert parse_ack_subject(long).domain == "hub"
    assert parse_ack_subject(long).seq == 17


def test_that_of_a_lease(queue: Any) -> None:
    queue.publish([b"x", b"y"])
    for lease in queue.reserve(2, wait=5):
        said = parse_ack_subject(lease.ack_subject)
        assert (said.stream, said.consumer) == (queue.stream, queue.consumer)
        assert (said.seq, said.attempt) == (lease.seq, lease.attempt)
        assert said.published / 1_000_000_000 == lease.published_at


@pytest.mark.parametrize(
    "text",
    ["", "tasks", "$JS.API.STREAM.PURGE.s", "$JS.ACK.s.c.1.1.1.1.*", "$JS.ACK.\0", "\ud800"],
)
def test_what_is_no_ack_subject(text: str) -> None:
    with pytest.raises(natslease.InvalidLease, match="is no ack subject"):
        parse_ack_subject(text)


@pytest.mark.parametrize("thing", [None, b"x", 7])
def test_what_is_no_text(thing: Any) -> None:
    with pytest.raises(TypeError, match="give an ack subject"):
        parse_ack_subject(thing)
