"""Results are applied once, and acknowledged after they are saved.

>>> with apply_once(ref) as first:       # a transaction
...     if first:                        # False: the result was saved before
...         Result.objects.create(...)

The row of the inbox is written in the same transaction as the result. After the commit the lease is
acknowledged; where that fails, ``settle_pending`` does it later, until the server says that the
task is settled or its queue gone. A task that is delivered again all the same finds its row.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from django.db import IntegrityError, router, transaction
from django.db.models import F
from django.utils import timezone

from natslease.contrib._settling import Taken, acknowledge

from ._clients import clients
from ._leases import LeaseRef

if TYPE_CHECKING:
    from .models import InboxEntry

    Key = tuple[str, str, int, int]

logger = logging.getLogger("natslease.django")

# Long after the last delivery of a task of any usual stream.
KEEP_SECONDS = 7 * 86_400.0
_TIMEOUT = 5.0
# What was saved less long ago is being acknowledged by who has saved it.
_FRESH_SECONDS = 10.0
# SQLite's oldest bound on the parameters of a statement is 999.
_CHUNK = 500


@contextmanager
def apply_once(
    ref: LeaseRef, *, using: str | None = None, settle: bool = True, timeout: float = _TIMEOUT
) -> Iterator[bool]:
    """A transaction in which a task's result is saved, unless it was before.

    After the commit the lease is acknowledged; if that fails, it is left to ``settle_pending``.

    Args:
        using: the alias of the database, which must be that of the results; left out, where the
            router puts the inbox.
        settle: False leaves acknowledging to ``settle_pending`` at once: in a web server, where
            nothing should wait for NATS with a database connection.
        timeout: seconds for acknowledging.

    Yields:
        True when the result is to be saved; False when it was saved before.

    Raises:
        RuntimeError: the code is inside ``atomic``: only its end would save the result.
    """
    with apply_all_once([ref], using=using, settle=settle, timeout=timeout) as first:
        yield first[0]


@contextmanager
def apply_all_once(
    refs: Iterable[LeaseRef],
    *,
    using: str | None = None,
    settle: bool = True,
    timeout: float = _TIMEOUT,
) -> Iterator[list[bool]]:
    """As ``apply_once``, for several tasks in one transaction; acknowledged in one go."""
    from .models import InboxEntry

    listed = list(refs)
    database = using or router.db_for_write(InboxEntry)
    with transaction.atomic(using=database, durable=True):
        # In the same order everywhere, so that two transactions cannot wait for each other.
        order = sorted(range(len(listed)), key=lambda i: listed[i].key)
        entered = {i: _enter(listed[i], database) for i in order}
        if settle:
            numbers = [number for number, _ in entered.values()]
            after = partial(_settle_saved, numbers, database, timeout)
            transaction.on_commit(after, using=database)
        yield [entered[i][1] for i in range(len(listed))]


def _enter(ref: LeaseRef, database: str) -> tuple[int, bool]:
    """Writes a row, or finds it, and returns its number and whether it is new."""
    from .models import InboxEntry

    stream, consumer, created, sequence = ref.key
    identity = {
        "alias": ref.alias,
        "stream": stream,
        "consumer": consumer,
        "created": created,
        "sequence": sequence,
    }
    rows = InboxEntry.objects.using(database)
    try:
        # Not get_or_create: that would ask first.
        with transaction.atomic(using=database):
            return rows.create(**identity, ack_subject=ref.ack_subject).pk, True
    except IntegrityError:
        entry = rows.get(**identity)
    # This delivery is to be settled too: a server can forget an ack that it has answered.
    entry.ack_subject = ref.ack_subject
    entry.status = InboxEntry.PENDING
    entry.settled_at = None
    entry.save(using=database, update_fields=["ack_subject", "status", "settled_at"])
    return entry.pk, False


def _settle_saved(numbers: list[int], database: str, timeout: float) -> None:
    from .models import InboxEntry

    try:
        rows = InboxEntry.objects.using(database).filter(pk__in=numbers)
        _settle(list(rows), database, timeout)
    except Exception:
        # What was saved stays saved.
        logger.exception("leases were not acknowledged: settle_pending will do it")


def _settle(entries: Sequence[InboxEntry], database: str, timeout: float) -> Counter[str]:
    from .models import InboxEntry

    ends = {
        "settled": InboxEntry.SETTLED,
        "gone": InboxEntry.GONE,
        "invalid": InboxEntry.REFUSED,
    }
    results = acknowledge(
        [Taken(e.alias, e.stream, e.consumer, e.ack_subject) for e in entries],
        clients.__getitem__,
        timeout,
    )
    by_end: dict[str, list[int]] = {}
    for entry, result in zip(entries, results, strict=True):
        by_end.setdefault(result.status, []).append(entry.pk)
        if result.status in ("invalid", "rejected"):
            logger.error("%s cannot be acknowledged: %s", entry, result.error)
    now = timezone.now()
    for end, numbers in by_end.items():
        for start in range(0, len(numbers), _CHUNK):
            rows = InboxEntry.objects.using(database).filter(pk__in=numbers[start : start + _CHUNK])
            if end in ends:
                rows.update(status=ends[end], settled_at=now, attempts=F("attempts") + 1)
            else:
                rows.update(attempts=F("attempts") + 1)
    return Counter(result.status for result in results)


def applied(refs: Iterable[LeaseRef], *, using: str | None = None) -> set[Key]:
    """The keys (``LeaseRef.key``) of those whose results were saved already: a query per queue."""
    from .models import InboxEntry

    database = using or router.db_for_read(InboxEntry)
    asked: set[Key] = set()
    by_queue: dict[tuple[str, str, str], list[int]] = {}
    for ref in refs:
        asked.add(ref.key)
        by_queue.setdefault((ref.alias, ref.stream, ref.consumer), []).append(ref.seq)
    found: set[Key] = set()
    for (alias, stream, consumer), sequences in by_queue.items():
        rows = InboxEntry.objects.using(database).filter(
            alias=alias, stream=stream, consumer=consumer
        )
        for start in range(0, len(sequences), _CHUNK):
            some = rows.filter(sequence__in=sequences[start : start + _CHUNK])
            found.update(
                (stream, consumer, created, sequence)
                for created, sequence in some.values_list("created", "sequence")
            )
    return found & asked  # a stream that was made anew counts from 1 again


def settle_pending(
    limit: int = 1000, *, using: str | None = None, timeout: float = 30.0
) -> dict[str, int]:
    """Acknowledges what is saved and not settled yet; for a job that runs every minute or so.

    Args:
        limit: at most so many, those that were tried least often first.
        timeout: seconds for acknowledging all of them.

    Returns:
        How many ended how: "settled", "gone", "unknown", "invalid", "rejected".
    """
    from .models import InboxEntry

    database = using or router.db_for_write(InboxEntry)
    before = timezone.now() - timedelta(seconds=_FRESH_SECONDS)
    rows = InboxEntry.objects.using(database).filter(settled_at=None, saved_at__lt=before)
    return dict(_settle(list(rows.order_by("attempts", "saved_at")[:limit]), database, timeout))


def prune(older_than: float = KEEP_SECONDS, *, using: str | None = None) -> int:
    """Deletes rows that were settled more than so many seconds ago, and returns how many.

    Keep them for as long as a task can be delivered or posted again.
    """
    from .models import InboxEntry

    database = using or router.db_for_write(InboxEntry)
    before = timezone.now() - timedelta(seconds=older_than)
    rows = InboxEntry.objects.using(database).filter(settled_at__lt=before)
    deleted = 0
    while numbers := list(rows.values_list("pk", flat=True)[:_CHUNK]):
        deleted += InboxEntry.objects.using(database).filter(pk__in=numbers).delete()[0]
    return deleted
