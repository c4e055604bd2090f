"""Queues and leases, through the public API, against a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

import natslease
from natslease import Message
from natslease.testing import Server

MakeQueue = Callable[..., Any]

pytestmark = pytest.mark.conformance


def statuses(results: list[natslease.SettleResult]) -> list[str]:
    return [result.status for result in results]


def test_ensure_creates_what_is_missing(client: Any) -> None:
    queue = client.queue(
        "s", subject="a.b", consumer="c", ack_wait=7, max_deliver=3, max_ack_pending=9
    )
    first = queue.ensure()
    assert first.created
    assert (first.stream, first.subject, first.consumer) == ("s", "a.b", "c")
    assert (first.ack_wait, first.max_deliver, first.max_ack_pending) == (7.0, 3, 9)
    assert abs(first.stream_created - time.time()) < 60
    assert not queue.ensure().created
    assert (queue.stream, queue.subject, queue.consumer) == ("s", "a.b", "c")


def test_ensure_treats_differences_as_it_is_told(client: Any) -> None:
    client.queue("s", ack_wait=7).ensure()
    other = client.queue("s", ack_wait=8, max_messages=5)
    assert other.ensure().ack_wait == 7
    with pytest.raises(natslease.ConfigError, match=r"max_messages|MaxMessages|max_msgs") as raised:
        other.ensure(conflict="error")
    assert raised.value.outcome == "rejected"
    assert other.ensure(conflict="update").ack_wait == 8
    with pytest.raises(natslease.ConfigError, match="conflict: is 'x'"):
        other.ensure(conflict="x")


def test_info_purge_and_delete(make_queue: MakeQueue) -> None:
    queue = make_queue(tasks=3)
    assert queue.info().num_pending == 3
    assert queue.purge() == 3
    assert queue.info().messages == 0
    assert queue.delete() is True
    assert queue.delete() is False
    with pytest.raises(natslease.QueueNotFound):
        queue.info()


def test_info_counts_what_was_published_before(queue: Any) -> None:
    for i in range(200):
        queue.publish([b"x"] * 3)
        assert queue.info().num_pending == 3 * (i + 1)


def test_queues_can_share_a_stream(client: Any) -> None:
    first, second = (
        client.queue("jobs", subject=f"job.{n}.tasks", consumer=f"job-{n}") for n in (1, 2)
    )
    first.ensure()
    with pytest.raises(natslease.ConfigError, match=r"takes job\.1\.tasks, not .* job\.2\.tasks"):
        second.ensure()
    report = second.publish([b"nobody takes it"])
    assert isinstance(report.failed[0].error, natslease.QueueNotFound)
    second.ensure(conflict="update")
    (stream,) = client.streams("jobs", consumers=True)
    assert stream.subjects == ["job.1.tasks", "job.2.tasks"]
    assert [c.subjects for c in stream.consumers] == [["job.1.tasks"], ["job.2.tasks"]]
    for queue in (first, second):
        queue.publish([queue.subject.encode()] * 2)
        assert queue.info().num_pending == 2
        (lease,) = queue.reserve(1)
        assert lease.data == queue.subject.encode()
    assert first.info().messages == 4
    assert first.purge() == 2
    assert second.info().num_pending == 1
    assert first.delete() is True
    assert first.delete() is False
    assert len(second.reserve(2)) == 1
    assert second.delete() is True
    assert client.streams("jobs") == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\r\n", bytes(range(256)), b"x" * 1_000_000],
    ids=lambda d: f"{len(d)} bytes",
)
def test_payloads_arrive_as_they_were(queue: Any, data: bytes) -> None:
    queue.publish([data])
    (lease,) = queue.reserve(1)
    assert lease.data == data
    lease.ack()


def test_a_payload_above_the_limit_fails_alone(queue: Any) -> None:
    report = queue.publish([b"a", b"x" * (1 << 20 | 1), b"b"])
    assert [r.index for r in report.accepted] == [0, 2]
    (failed,) = report.failed
    assert isinstance(failed.error, natslease.PayloadTooLarge)
    assert failed.error.outcome == "rejected"
    assert [lease.data for lease in queue.reserve(5)] == [b"a", b"b"]


def test_messages_carry_ids_and_headers(queue: Any) -> None:
    headers = {"A": "1", "B": ["2", "ü"]}
    queue.publish(
        [Message(b"x", id="seventeen", headers=headers), bytearray(b"y"), memoryview(b"z")]
    )
    x, y, z = queue.reserve(5)
    assert (x.data, x.id) == (b"x", "seventeen")
    assert x.headers["A"] == "1"
    assert x.headers["B"] == "2"
    assert x.header_values("B") == ["2", "ü"]
    assert (y.data, z.data) == (b"y", b"z")
    assert y.id != z.id


def test_the_same_id_is_stored_once(queue: Any) -> None:
    first = queue.publish([Message(b"x", id="1"), Message(b"y", id="2")])
    again = queue.publish([Message(b"x", id="1"), Message(b"z", id="3")])
    assert [r.id for r in again.duplicates] == ["1"]
    assert again.duplicates[0].seq == first.accepted[0].seq
    assert [r.id for r in again.accepted] == ["3"]
    assert not again.failed
    assert [lease.data for lease in queue.reserve(5)] == [b"x", b"y", b"z"]


def test_many_messages_are_published_in_their_order(queue: Any) -> None:
    n = 40_000  # more than one crossing of the boundary
    report = queue.publish([b"%d" % i for i in range(n)], timeout=30)
    assert len(report) == len(report.accepted) == n
    assert [r.seq for r in report] == list(range(1, n + 1))
    assert report[-1].index == n - 1
    assert [r.index for r in report[:3]] == [0, 1, 2]
    assert repr(report) == f"<PublishReport: {n} accepted, 0 duplicates, 0 failed>"


def test_nothing_to_publish(queue: Any) -> None:
    assert len(queue.publish([])) == 0


def test_a_lease_tells_what_it_is(make_queue: MakeQueue) -> None:
    queue = make_queue("s", subject="a.b", ack_wait=30)
    before = time.time()
    queue.publish([Message(b'{"id": 5}', id="5"), b"rest"])
    # A consumer may be told of a message a moment after the publisher.
    while queue.info().num_pending < 2:
        time.sleep(0.001)
    (lease,) = queue.reserve(1)
    assert lease.json() == {"id": 5}
    assert (lease.id, lease.seq, lease.attempt, lease.pending) == ("5", 1, 1, 1)
    assert lease.subject == "a.b"
    assert lease.ack_subject.startswith("$JS.ACK.")
    assert lease.queue.stream == "s"
    assert before - 1 <= lease.published_at <= time.time() + 1
    assert 28 < lease.time_left <= 30
    assert before + 28 < lease.expires_at <= time.time() + 30
    assert "attempt 1" in repr(lease)


def test_an_empty_queue_is_an_empty_list(queue: Any) -> None:
    batch = queue.reserve(3)
    assert batch == []
    assert 0 <= batch.retry_after <= 1
    started = time.monotonic()
    assert queue.reserve(3, wait=0.3) == []
    assert time.monotonic() - started >= 0.3


def test_a_task_ends_the_wait(queue: Any, nats_url: str) -> None:
    publisher = natslease.Client(nats_url, name="publisher").queue("tasks")
    threading.Timer(0.2, publisher.publish, [[b"x"]]).start()
    started = time.monotonic()
    (lease,) = queue.reserve(3, wait=10)
    assert time.monotonic() - started < 5
    assert lease.data == b"x"


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_ack_is_for_good(make_queue: MakeQueue, many: bool) -> None:
    queue = make_queue(tasks=2)
    batch = queue.reserve(2)
    if many:
        assert statuses(queue.ack(batch)) == ["settled", "settled"]
    else:
        assert [lease.ack().status for lease in batch] == ["settled", "settled"]
    assert all(lease.settled for lease in batch)
    assert queue.info().messages == 0


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("how", ["nak", "release"])
def test_what_is_given_back_comes_again(make_queue: MakeQueue, how: str, many: bool) -> None:
    queue = make_queue(tasks=1)
    (lease,) = queue.reserve(1)
    result = getattr(queue, how)([lease])[0] if many else getattr(lease, how)()
    assert (result.status, result.late, result.error) == ("settled", False, None)
    (again,) = queue.reserve(1, wait=2)
    assert again.attempt == 2
    assert again.seq == lease.seq


def test_nak_can_be_delayed(make_queue: MakeQueue) -> None:
    queue = make_queue(tasks=1)
    (lease,) = queue.reserve(1)
    started = time.monotonic()
    lease.nak(delay=1.0)
    assert queue.reserve(1, wait=5)[0].attempt == 2
    assert time.monotonic() - started >= 0.9


def test_release_does_not_wear_a_task_out(make_queue: MakeQueue) -> None:
    queue = make_queue(max_deliver=2)
    queue.publish([Message(b"x", id="7", headers={"A": "1"})])
    for _ in range(6):
        (lease,) = queue.reserve(1, wait=3)
        assert (lease.data, lease.id, lease.headers["A"]) == (b"x", "7", "1")
        lease.release()


def test_term_is_the_end(make_queue: MakeQueue) -> None:
    queue = make_queue(tasks=2)
    batch = queue.reserve(2)
    batch[0].term("broken image")
    assert statuses(queue.term([batch[1]], "worse")) == ["settled"]
    assert queue.info().messages == 0


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_extend_moves_the_end(make_queue: MakeQueue, many: bool) -> None:
    queue = make_queue(ack_wait=2, tasks=1)
    (lease,) = queue.reserve(1)
    for _ in range(3):
        time.sleep(1)
        before = lease.expires_at
        assert (queue.extend([lease])[0] if many else lease.extend()).status == "settled"
        assert lease.expires_at > before + 0.5
    assert not lease.settled
    assert queue.reserve(1) == []
    assert not queue.ack([lease])[0].late


def test_keep_extends_until_settled(make_queue: MakeQueue, client: Any) -> None:
    queue = make_queue(ack_wait=1, tasks=2)
    kept, let_go = queue.reserve(2)
    kept.keep()
    queue.keep([let_go], max_hold=60)
    assert client.stats().kept == 2
    queue.unkeep([let_go])
    (again,) = queue.reserve(1, wait=3)
    assert (again.seq, again.attempt) == (let_go.seq, 2)
    time.sleep(1)
    assert kept.ack().late is False
    assert client.stats().kept == 0


def test_an_ack_past_the_end_is_marked(make_queue: MakeQueue) -> None:
    queue = make_queue(ack_wait=0.5, tasks=5)
    leases = queue.reserve(5)
    time.sleep(max(lease.time_left for lease in leases) + 0.05)
    assert leases[0].ack() == natslease.SettleResult("settled", late=True)
    refused = [leases[1].nak, leases[2].release, leases[3].extend, leases[4].term]
    for call in refused:
        with pytest.raises(natslease.LeaseExpired) as raised:
            call()
        assert raised.value.outcome == "rejected"
    assert statuses(queue.nak(leases[1:3])) == ["expired", "expired"]


def test_another_process_can_settle_by_ack_subject(make_queue: MakeQueue, nats_url: str) -> None:
    queue = make_queue(tasks=3)
    subjects = [lease.ack_subject for lease in queue.reserve(3)]
    with natslease.Client(nats_url, name="another") as other:
        assert statuses(other.queue("tasks").ack(subjects)) == ["settled"] * 3
    assert queue.info().messages == 0


ACK = "$JS.ACK.tasks.tasks.1.1.1.1"
FORGED = [
    "",
    "x",
    "job.8.tasks",
    "$JS.API.STREAM.PURGE.tasks",
    ACK,
    f"{ACK}.0.0",
    "$JS.ACK.tasks.*.1.1.1.1.0",
    "$JS.ACK.tasks.>",
    f"{ACK}.0\r\nPUB x 0\r\n\r\n",
    "$JS.ACK.other.tasks.1.1.1.1.0",
    "$JS.ACK.tasks.other.1.1.1.1.0",
    f"{ACK}.0\udc80",
    "x" * 1_000_000,
]


@pytest.mark.parametrize("how", ["ack", "nak", "release", "extend", "term"])
def test_a_forged_ack_subject_is_invalid_alone(
    make_queue: MakeQueue, client: Any, how: str
) -> None:
    queue = make_queue(tasks=2)
    (lease,) = queue.reserve(1)
    results = getattr(queue, how)([lease, *FORGED])
    assert statuses(results) == ["settled"] + ["invalid"] * len(FORGED)
    sent = client.stats().out_messages
    assert statuses(getattr(queue, how)(FORGED)) == ["invalid"] * len(FORGED)
    assert client.stats().out_messages == sent
    assert all(isinstance(r.error, natslease.InvalidLease) for r in results[1:])
    assert all(len(str(r.error)) < 1000 for r in results[1:])


def test_a_lease_of_another_queue_is_invalid(make_queue: MakeQueue) -> None:
    ours, theirs = make_queue("ours", tasks=1), make_queue("theirs", tasks=1)
    (lease,) = theirs.reserve(1)
    assert statuses(ours.ack([lease])) == ["invalid"]
    with pytest.raises(natslease.InvalidLease):
        ours.keep([lease])
    assert statuses(theirs.ack([lease])) == ["settled"]


def test_settling_nothing(queue: Any) -> None:
    assert queue.ack([]) == queue.release([]) == []


def test_part_of_a_batch_in_another_order(make_queue: MakeQueue) -> None:
    queue = make_queue(tasks=5)
    batch = queue.reserve(5)
    extended = batch[3]
    extended.extend()
    picked = [extended, batch[0], batch[2].ack_subject]
    assert statuses(queue.ack(picked)) == ["settled"] * 3
    assert [lease.settled for lease in batch] == [True, False, False, True, False]
    assert statuses(queue.ack([batch[1], batch[4]])) == ["settled"] * 2
    assert queue.info().messages == 1 - 1


class TestLeaseAsContext:
    def test_ack_at_the_end(self, make_queue: MakeQueue) -> None:
        queue = make_queue(tasks=1)
        with queue.reserve(1)[0] as lease:
            assert lease.data == b"0"
        assert lease.settled
        assert queue.info().messages == 0

    def test_nak_when_the_block_raises(self, make_queue: MakeQueue) -> None:
        queue = make_queue(tasks=1)
        with pytest.raises(ZeroDivisionError), queue.reserve(1)[0]:
            _ = 1 / 0
        assert queue.reserve(1, wait=2)[0].attempt == 2

    def test_release_when_the_block_is_interrupted(self, make_queue: MakeQueue) -> None:
        queue = make_queue(tasks=1, max_deliver=1)
        with pytest.raises(KeyboardInterrupt), queue.reserve(1)[0]:
            raise KeyboardInterrupt
        assert queue.reserve(1, wait=2)[0].data == b"0"  # it would be dead after a nak

    def test_what_is_settled_inside_stays_so(self, make_queue: MakeQueue, client: Any) -> None:
        queue = make_queue(tasks=1)
        with queue.reserve(1)[0] as lease:
            lease.term()
            sent = client.stats().out_messages
        assert client.stats().out_messages == sent

    def test_the_own_error_is_the_one_that_is_seen(
        self, make_queue: MakeQueue, nats_server: Server
    ) -> None:
        queue = make_queue(tasks=1)
        (lease,) = queue.reserve(1)
        nats_server.kill()
        with pytest.raises(ZeroDivisionError) as raised, lease:
            _ = 1 / 0
        if hasattr(raised.value, "__notes__"):
            assert "could not be given back" in raised.value.__notes__[0]


class TestConsume:
    def test_every_task_in_a_loop(self, make_queue: MakeQueue, client: Any) -> None:
        queue = make_queue(tasks=10)
        seen = []
        for lease in queue.consume(4, wait=1):
            with lease:
                seen.append(int(lease.data))
            if len(seen) == 10:
                break
        assert seen == list(range(10))
        assert queue.info().messages == 0
        assert client.stats().kept == 0

    def test_what_was_not_reached_is_given_back(self, make_queue: MakeQueue, client: Any) -> None:
        queue = make_queue(tasks=5, max_deliver=1)
        leases = queue.consume(5, wait=1)
        first = next(leases)
        assert client.stats().kept == 5
        leases.close()
        assert client.stats().kept == 0
        first.ack()
        seen: set[bytes] = set()
        while len(seen) < 4:
            batch = queue.reserve(5, wait=3)
            assert batch
            seen |= {lease.data for lease in batch}
        assert seen == {b"1", b"2", b"3", b"4"}

    def test_leases_are_kept_while_worked_on(self, make_queue: MakeQueue) -> None:
        queue = make_queue(tasks=1, ack_wait=1)
        for lease in queue.consume(1, wait=1):
            time.sleep(2.5)
            assert lease.ack().late is False
            break
        assert queue.info().num_redelivered == 0

    def test_an_empty_queue_is_asked_again(self, queue: Any, nats_url: str) -> None:
        publisher = natslease.Client(nats_url, name="publisher").queue("tasks")
        threading.Timer(0.5, publisher.publish, [[b"x"]]).start()
        with next(queue.consume(1, wait=0)) as lease:
            assert lease.data == b"x"


def test_saturated_is_not_empty(make_queue: MakeQueue) -> None:
    queue = make_queue(tasks=3, max_ack_pending=2)
    batch = queue.reserve(3, wait=0.2)
    assert len(batch) == 2
    with pytest.raises(natslease.Saturated) as raised:
        queue.reserve(1)
    assert raised.value.retry_after > 0
    queue.ack(batch)
    assert len(queue.reserve(1, wait=2)) == 1


def test_a_queue_that_is_not_there(client: Any) -> None:
    queue = client.queue("nowhere")
    for call in (
        lambda: queue.reserve(1), lambda: queue.reserve(1, wait=3), queue.info, queue.purge,
    ):  # fmt: skip
        started = time.monotonic()
        with pytest.raises(natslease.QueueNotFound) as raised:
            call()
        assert raised.value.outcome == "rejected"
        assert time.monotonic() - started < 2.5
    report = queue.publish([b"x"])
    assert isinstance(report.failed[0].error, natslease.QueueNotFound)


def test_leases_of_a_deleted_queue_are_gone(make_queue: MakeQueue) -> None:
    queue = make_queue(tasks=3)
    leases = queue.reserve(3)
    queue.delete()
    assert statuses(queue.ack(leases[:2])) == ["gone", "gone"]
    with pytest.raises(natslease.LeaseGone):
        leases[2].ack()


def test_leases_of_a_queue_that_was_made_anew_are_gone(make_queue: MakeQueue) -> None:
    queue = make_queue(tasks=2)
    old, fresh = (lease.ack_subject for lease in queue.reserve(2))
    published = natslease.parse_ack_subject(old).published
    old = old.replace(str(published), str(published - 60 * 10**9))  # before the stream was made
    for settle in (queue.ack, queue.nak, queue.release, queue.extend, queue.term):
        assert statuses(settle([old])) == ["gone"]
    assert queue.info().num_ack_pending == 2
    assert statuses(queue.ack([old, fresh])) == ["gone", "settled"]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda q: q.reserve(0), natslease.ConfigError, "n is 0"),
        (lambda q: q.reserve(-1), natslease.ConfigError, "n is -1"),
        (lambda q: q.reserve(10_001), natslease.ConfigError, "n is 10001"),
        (lambda q: q.reserve(2**70), natslease.ConfigError, "n: is"),
        (lambda q: q.reserve("1"), TypeError, "n: is str"),
        (lambda q: q.reserve(1.0), TypeError, "n: is float"),
        (lambda q: q.reserve(1, wait=-1), natslease.ConfigError, "wait: is -1"),
        (lambda q: q.reserve(1, wait="1"), TypeError, "wait: is str"),
        (
            lambda q: q.reserve(1, wait=2, timeout=2),
            natslease.ConfigError,
            "shorter than the timeout",
        ),
        (lambda q: q.reserve(1, timeout=0), natslease.ConfigError, "timeout: is 0"),
        (lambda q: q.reserve(1, timeout=float("nan")), natslease.ConfigError, "timeout: is nan"),
        (lambda q: q.reserve(1, timeout=True), TypeError, "timeout: is bool"),
        (lambda q: q.info(timeout=-1), natslease.ConfigError, "timeout: is -1"),
        (lambda q: q.ack("subject"), TypeError, "give a list"),
        (lambda q: q.ack([b"subject"]), TypeError, "item 0 is bytes"),
        (lambda q: q.nak(["x"], delay=-1), natslease.ConfigError, "delay: is -1"),
        (lambda q: q.keep(["x"], max_hold=0), natslease.ConfigError, "max_hold: is 0"),
        (lambda q: q.publish(b"x"), TypeError, "give a list"),
        (lambda q: q.publish("x"), TypeError, "give a list"),
        (lambda q: q.publish(["x"]), TypeError, "item 0 is str, not bytes or Message: encode it"),
        (lambda q: q.publish([b"", None]), TypeError, "item 1 is NoneType"),
        (lambda q: q.publish([Message(cast("Any", "x"))]), TypeError, "item 0 is str"),
        (lambda q: q.publish([Message(b"x", id=cast("Any", 1))]), TypeError, "item 0: id is int"),
        (lambda q: q.publish([Message(b"x", id="")]), natslease.ConfigError, "id is empty"),
        (
            lambda q: q.publish([Message(b"x", id="\udc80")]),
            natslease.ConfigError,
            "cannot be encoded",
        ),
        (lambda q: q.publish([Message(b"x", headers=cast("Any", {"A": 1}))]), TypeError, "int"),
        (
            lambda q: q.publish([Message(b"x", headers=cast("Any", {"A": [1]}))]),
            TypeError,
            "header A",
        ),
        (
            lambda q: q.publish([Message(b"x", headers={"": "1"})]),
            natslease.ConfigError,
            "name is empty",
        ),
    ],
)
def test_bad_input_is_refused_at_once(
    queue: Any, client: Any, call: Callable[[Any], Any], error: type[Exception], text: str
) -> None:
    sent = client.stats().out_messages
    with pytest.raises(error, match=text):
        call(queue)
    assert client.stats().out_messages == sent


@pytest.mark.parametrize("headers", [{"A B": "1"}, {"A": "1\r\nB: 2"}, {"A:": "1"}])
def test_headers_that_are_none_are_refused(queue: Any, headers: dict[str, str]) -> None:
    report = queue.publish([Message(b"x", headers=headers), b"y"])
    assert isinstance(report.failed[0].error, natslease.ConfigError), report.failed
    assert [lease.data for lease in queue.reserve(2)] == [b"y"]


def test_a_consumer_is_deleted_and_its_stream_stays(make_queue: Callable[..., Any]) -> None:
    queue = make_queue(tasks=1)
    assert queue.delete_consumer() is True
    assert queue.delete_consumer() is False
    with pytest.raises(natslease.QueueNotFound):
        queue.info()
    queue.ensure()
    assert queue.info().num_pending == 1
    assert queue.delete() is True
    assert queue.delete_consumer() is False
