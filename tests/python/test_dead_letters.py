"""Tasks that have failed on their last attempt."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest

import natslease
from natslease import Message
from natslease.testing import Server
from natswire import connected

MakeQueue = Callable[..., Any]

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.parametrize("retention", ["workqueue", "limits"]),
]


@pytest.fixture
def make_mortal(make_queue: MakeQueue, retention: str) -> MakeQueue:
    """Makes queues that keep dead letters."""

    def make(stream: str = "tasks", **options: Any) -> Any:
        options = {"max_deliver": 2, "dead_letters": "dead", **options}
        return make_queue(stream, retention=retention, **options)

    return make


def await_letters(queue: Any, n: int) -> list[natslease.DeadLetter]:
    """Reserves, which is what the server needs for meeting what is dead, until n letters came."""
    deadline = time.monotonic() + 20
    while len(letters := queue.dead_letters()) < n:
        assert time.monotonic() < deadline
        assert queue.reserve(1, wait=0.1) == []
    return list(letters)


def test_what_fails_twice_is_a_dead_letter(make_mortal: MakeQueue, client: Any) -> None:
    queue = make_mortal("s", subject="a.b", consumer="c")
    before = time.time()
    queue.publish([Message(b'{"n": 1}', id="17", headers={"A": ["1", "2"]})])
    for _ in range(2):
        assert queue.dead_letters() == []
        with pytest.raises(ZeroDivisionError), queue.reserve(1, wait=2)[0]:
            _ = 1 / 0
    (letter,) = queue.dead_letters()
    assert (letter.stream, letter.subject, letter.consumer) == ("s", "a.b", "c")
    assert (letter.seq, letter.id, letter.attempts) == (1, "17", 2)
    assert letter.json() == {"n": 1}
    assert letter.headers == {"A": "1"}
    assert letter.header_values("A") == ["1", "2"]
    assert letter.reason == "ZeroDivisionError: division by zero"
    assert letter.worker
    assert before - 1 < letter.published_at <= letter.died_at < time.time() + 1
    assert repr(letter) == ("<DeadLetter 17 of s: 2 attempts, ZeroDivisionError: division by zero>")
    again = pickle.loads(pickle.dumps(letter))
    assert again == letter
    assert {again, letter} == {letter}

    report = queue.requeue([again])
    assert len(report.accepted) == 1
    assert queue.dead_letters() == []
    (lease,) = queue.reserve(5)
    assert (lease.id, lease.attempt, lease.data) == ("17", 1, b'{"n": 1}')
    assert lease.header_values("A") == ["1", "2"]
    lease.ack()
    (failed,) = queue.requeue([letter]).failed
    assert isinstance(failed.error, natslease.LeaseGone)
    assert queue.reserve(5) == []


def test_a_batch_of_which_only_some_are_on_their_last_attempt(make_mortal: MakeQueue) -> None:
    queue = make_mortal()
    queue.publish([b"old"])
    queue.nak(queue.reserve(1))
    queue.publish([b"new"])
    batch = queue.reserve(2, wait=2)
    while len(batch) < 2:
        batch += queue.reserve(1, wait=2)
    results = queue.nak([lease.ack_subject for lease in batch], reason="no\nluck")
    assert [r.status for r in results] == ["settled", "settled"]
    assert [(x.data, x.reason) for x in queue.dead_letters()] == [(b"old", "no luck")]
    assert queue.reserve(2, wait=2)[0].data == b"new"


def test_what_was_never_settled_is_a_dead_letter(make_mortal: MakeQueue) -> None:
    queue = make_mortal(ack_wait=0.3, tasks=3)
    for _ in range(2):
        taken = 0
        while taken < 3:
            taken += len(queue.reserve(3, wait=5))
    letters = await_letters(queue, 3)
    assert sorted(letter.data for letter in letters) == [b"0", b"1", b"2"]
    assert {(x.attempts, x.worker, x.reason) for x in letters} == {
        (2, "", "its last lease ran out")
    }
    assert len(queue.dead_letters(2)) == 2
    assert len(queue.requeue(letters).accepted) == 3
    assert queue.dead_letters() == []
    assert len(queue.ack(queue.reserve(3, wait=1))) > 0


def test_beside_an_existing_stream_of_advisories(
    make_mortal: MakeQueue, nats_server: Server
) -> None:
    with connected(nats_server) as wire:
        advisories = {"name": "OPS", "subjects": ["$JS.EVENT.ADVISORY.>"]}
        assert "error" not in wire.request("$JS.API.STREAM.CREATE.OPS", advisories)
    queue = make_mortal(ack_wait=0.3, max_deliver=1, tasks=2)
    queue.reserve(1)
    queue.reserve(1, wait=1)[0].nak(reason="x")
    letters = await_letters(queue, 2)
    assert {letter.reason for letter in letters} == {"x", "its last lease ran out"}
    assert len(queue.requeue(letters).accepted) == 2
    assert queue.dead_letters() == []


def test_queues_share_a_stream(make_mortal: MakeQueue) -> None:
    a, b = make_mortal("a", max_deliver=1), make_mortal("b", max_deliver=1)
    a.publish([b"of a"])
    b.publish([b"of b"])
    for queue in (a, b):
        queue.reserve(1)[0].nak()
    assert [letter.data for letter in a.dead_letters()] == [b"of a"]
    assert [letter.data for letter in b.dead_letters()] == [b"of b"]
    (failed,) = a.requeue(b.dead_letters()).failed
    assert isinstance(failed.error, natslease.ConfigError)


def test_refusals(make_mortal: MakeQueue, client: Any) -> None:
    queue = make_mortal()
    for limit in (0, 10_001):
        with pytest.raises(natslease.ConfigError, match="limit"):
            queue.dead_letters(limit)
    with pytest.raises(TypeError, match="limit"):
        queue.dead_letters("1")
    with pytest.raises(TypeError, match="item 0 is str"):
        queue.requeue(["1"])
    assert len(queue.requeue([])) == 0
    without = client.queue("tasks")
    with pytest.raises(natslease.ConfigError, match="names no stream") as raised:
        without.dead_letters()
    assert str(raised.value).endswith(
        "the queue keeps no dead letters: its option dead_letters names no stream"
    )
    with pytest.raises(natslease.ConfigError, match="dead_letters: is the queue's own"):
        client.queue("tasks", dead_letters="tasks")
    with pytest.raises(natslease.QueueNotFound, match="other"):
        client.queue("tasks", dead_letters="other").dead_letters()


def test_what_is_discarded_does_not_come_back(make_mortal: MakeQueue) -> None:
    queue = make_mortal(max_deliver=1)
    queue.publish([b"1", b"2"])
    queue.nak(queue.reserve(2))
    one, two = queue.dead_letters()
    assert queue.discard([one, one]) == 1
    assert queue.dead_letters() == [two]
    assert queue.discard([]) == 0
    assert queue.reserve(5) == []
    with pytest.raises(TypeError, match="item 0 is str"):
        queue.discard(["1"])


def test_a_letter_of_which_only_the_server_tells_can_be_discarded(make_mortal: MakeQueue) -> None:
    queue = make_mortal(max_deliver=1, ack_wait=1.0)
    queue.publish([b"1"])
    assert len(queue.reserve(1)) == 1
    letters = await_letters(queue, 1)
    assert queue.discard(letters) == 1
    assert queue.dead_letters() == []
