"""Results are applied once, and acknowledged after the commit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

import natslease
from natslease.contrib.django import LeaseRef, inbox
from natslease.contrib.django.inbox import applied, apply_all_once, apply_once, settle_pending
from natslease.contrib.django.models import InboxEntry
from natslease.testing import Server
from testsite.models import Result

pytestmark = pytest.mark.django_db(transaction=True)

Take = Callable[[int], list[LeaseRef]]


@pytest.fixture
def take(images: natslease.Queue) -> Take:
    """Publishes so many tasks, and takes them."""

    def take(n: int) -> list[LeaseRef]:
        images.publish([b"%d" % i for i in range(n)])
        return [LeaseRef.of(lease) for lease in images.reserve(n, wait=5)]

    return take


def save(ref: LeaseRef) -> bool:
    with apply_once(ref) as first:
        if first:
            Result.objects.create(task=str(ref.seq), text="")
    return first


def age(seconds: float) -> None:
    """Makes the rows older than they are."""
    before = timezone.now() - timedelta(seconds=seconds)
    InboxEntry.objects.update(saved_at=before)
    InboxEntry.objects.exclude(settled_at=None).update(settled_at=before)


def test_it_is_acknowledged_after_the_commit(images: natslease.Queue, take: Take) -> None:
    (ref,) = take(1)
    with apply_once(ref) as first:
        assert first
        assert images.info().num_ack_pending == 1
    info = images.info()
    assert (info.messages, info.num_ack_pending) == (0, 0)
    entry = InboxEntry.objects.get()
    assert (entry.status, entry.attempts, entry.ref) == ("settled", 1, ref)
    assert entry.settled_at is not None
    assert (entry.stream, entry.consumer, entry.created, entry.sequence) == ref.key
    assert str(entry) == f"images {ref.seq}: settled"


def test_a_second_delivery_is_not_applied_but_settled(
    images: natslease.Queue, take: Take, nats_server: Server
) -> None:
    (ref,) = take(1)
    images.nak([ref.ack_subject])
    (again,) = images.reserve(1, wait=5)
    assert save(ref)
    nats_server.restart()  # whatever it has forgotten
    assert not save(LeaseRef.of(again))
    assert Result.objects.count() == 1
    assert InboxEntry.objects.get().status == "settled"
    assert images.info().num_ack_pending == 0


def test_when_saving_fails_nothing_is_written_or_acknowledged(
    images: natslease.Queue, take: Take
) -> None:
    (ref,) = take(1)

    def fail() -> None:
        with apply_once(ref):
            Result.objects.create(task="x", text="")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (Result.objects.count(), InboxEntry.objects.count()) == (0, 0)
    assert images.info().num_ack_pending == 1
    assert save(ref)


def test_several_in_one_transaction(images: natslease.Queue, take: Take) -> None:
    refs = take(20)
    save(refs[7])
    with apply_all_once(reversed(refs)) as first:
        assert [ref for ref, new in zip(reversed(refs), first, strict=True) if not new] == [refs[7]]
    assert images.info().num_ack_pending == 0
    assert set(InboxEntry.objects.values_list("status", flat=True)) == {"settled"}
    with apply_all_once([]) as first:
        assert first == []


def test_acknowledging_can_be_left_to_another_process(images: natslease.Queue, take: Take) -> None:
    (ref,) = take(1)
    with apply_once(ref, settle=False) as first:
        assert first
    assert images.info().num_ack_pending == 1
    age(60)
    assert settle_pending() == {"settled": 1}


def test_the_same_task_twice_in_one_transaction(take: Take) -> None:
    (ref,) = take(1)
    with apply_all_once([ref, ref]) as first:
        assert sorted(first) == [False, True]


def test_inside_a_transaction_it_refuses(take: Take) -> None:
    (ref,) = take(1)
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic(), apply_once(ref):
        pass
    assert InboxEntry.objects.count() == 0


def test_during_an_outage_the_result_is_saved_and_acknowledged_later(
    images: natslease.Queue, take: Take, nats_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    refs = take(3)
    with nats_server.frozen():
        with apply_once(refs[0], timeout=0.3) as first:
            assert first
        assert InboxEntry.objects.get().status == "pending"
        age(60)
        assert settle_pending(timeout=0.3) == {"unknown": 1}
        assert InboxEntry.objects.get().attempts == 2
    # Not killed: it could forget that it has given the tasks out, and answer no ack before it has
    # given them out again.
    nats_server.stop()
    with apply_once(refs[1], timeout=0.3) as first:
        assert first
    age(60)
    assert settle_pending(timeout=0.3) == {"unknown": 2}
    nats_server.start()
    deadline = time.monotonic() + 20
    while InboxEntry.objects.filter(settled_at=None).exists():
        assert time.monotonic() < deadline
        settle_pending()  # until the circuit breaker lets it try
    assert set(InboxEntry.objects.values_list("status", flat=True)) == {"settled"}
    assert settle_pending() == {}
    assert images.info().messages == 1


def test_when_the_queue_is_gone_it_is_done(images: natslease.Queue, take: Take) -> None:
    refs = take(2)
    images.delete()
    assert save(refs[0])
    entry = InboxEntry.objects.get()
    assert entry.status == "gone"
    assert entry.settled_at is not None


def test_what_was_just_saved_is_left_to_who_saved_it(take: Take, nats_server: Server) -> None:
    (ref,) = take(1)
    nats_server.kill()
    with apply_once(ref, timeout=0.2):
        pass
    assert settle_pending() == {}


def test_applied(take: Take) -> None:
    refs = take(30)
    for ref in refs[:3]:
        save(ref)
    assert applied(refs) == {ref.key for ref in refs[:3]}
    assert applied([]) == set()


def test_a_queue_of_the_same_name_that_was_made_anew(images: natslease.Queue, take: Take) -> None:
    (old,) = take(1)
    save(old)
    images.delete()
    images.ensure()
    (new,) = take(1)
    assert (new.stream, new.seq) == (old.stream, old.seq)
    assert applied([new]) == set()
    assert save(new)


def test_the_table_itself_refuses_a_second_row(take: Take) -> None:
    (ref,) = take(1)
    save(ref)
    entry = InboxEntry.objects.get()
    entry.pk = None
    with pytest.raises(IntegrityError):
        entry.save(force_insert=True)


def test_pruning(take: Take) -> None:
    refs = take(3)
    for ref in refs[:2]:
        save(ref)
    assert inbox.prune() == 0
    age(8 * 86_400)
    save(refs[2])
    assert inbox.prune() == 2
    assert applied(refs) == {refs[2].key}


def test_both_deliveries_at_the_same_time(take: Take, site: Any) -> None:
    (ref,) = take(1)
    barrier = threading.Barrier(4)
    outcomes: list[bool] = []

    def deliver() -> None:
        try:
            barrier.wait()
            outcomes.append(save(ref))
        finally:
            connection.close()

    threads = [threading.Thread(target=deliver) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False, False, False, True]
    assert Result.objects.count() == 1
