"""The listing of streams, and what is in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import natslease


def test_streams_and_their_consumers(client: Any, make_queue: Callable[..., Any]) -> None:
    assert client.streams() == []
    queue = make_queue(
        "job_1", subject="job.1.tasks", consumer="job-1-consumer", ack_wait=7.5, tasks=3
    )
    make_queue("job_22", subject="job.22.tasks")
    make_queue("images")
    queue.reserve(1, wait=5)

    streams = client.streams("job_*", consumers=True)
    assert isinstance(streams, natslease.StreamList)
    assert streams.missing == []
    assert [s.name for s in streams] == ["job_1", "job_22"]
    job = streams[0]
    assert (job.subjects, job.messages, job.first_seq, job.last_seq) == (["job.1.tasks"], 3, 1, 3)
    now = time.time()
    for moment in (job.created, job.first_at, job.last_at, job.told):
        assert abs(moment - now) < 60
    (consumer,) = job.consumers
    assert (consumer.stream, consumer.name) == ("job_1", "job-1-consumer")
    assert (consumer.num_pending, consumer.num_ack_pending) == (2, 1)
    assert (consumer.ack_wait, consumer.subjects) == (7.5, ["job.1.tasks"])
    assert (streams[1].first_at, streams[1].last_at) == (0.0, 0.0)

    assert [s.name for s in client.streams(subject="job.22.tasks")] == ["job_22"]
    assert [(s.name, s.num_consumers, s.consumers) for s in client.streams("images")] == [
        ("images", 1, [])
    ]


@pytest.mark.parametrize("filter_", [{"pattern": "job_[0-"}, {"subject": "a..b"}, {"pattern": ""}])
def test_what_is_no_filter_is_refused(client: Any, filter_: dict[str, str]) -> None:
    (option,) = filter_
    with pytest.raises(natslease.ConfigError, match=option):
        client.streams(**filter_)


def test_an_outage_is_not_an_empty_list(face: Any) -> None:
    client = face.client("nats://127.0.0.1:1", timeout=2.0)
    with pytest.raises(natslease.Unavailable):
        client.streams()
    with pytest.raises(natslease.Unavailable):
        client.delete_stream("job_1")


def test_delete_stream(client: Any, make_queue: Callable[..., Any]) -> None:
    make_queue("job_1")
    assert client.delete_stream("job_1") is True
    assert client.delete_stream("job_1") is False
    with pytest.raises(natslease.ConfigError, match="name: "):
        client.delete_stream("a.b")


def test_the_account(client: Any, make_queue: Callable[..., Any]) -> None:
    make_queue("a", tasks=3)
    account = client.account()
    assert (account.streams, account.consumers, account.max_streams) == (1, 1, -1)
    assert account.storage > 0
    assert account.api_total > 0
