"""A user's program, for type checkers: `mypy --strict` and pyright. It is not run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from typing_extensions import assert_type

import natslease
from natslease.testing import Memory

client = natslease.Client.from_env(timeout=5.0)
assert_type(client, natslease.Client)
queue = client.queue("images", ack_wait=300, max_deliver=2)
assert_type(queue, natslease.Queue)
assert_type(queue.ensure(conflict="update"), natslease.QueueInfo)

report = queue.publish([b"1", natslease.Message(b"2", id="2", headers={"Kind": ["a", "b"]})])
assert_type(report, natslease.PublishReport)
assert_type([r.seq for r in report.accepted], list[int])
assert_type([r.error for r in report.failed], list[natslease.Error | None])

batch = queue.reserve(64, wait=0.5)
assert_type(batch, natslease.LeaseBatch[natslease.Lease])
assert_type(batch.retry_after, float)
for lease in batch:
    assert_type(lease, natslease.Lease)
    assert_type(lease.queue, natslease.Queue)
    with lease as same:
        assert_type(same, natslease.Lease)
    assert_type(lease.data, bytes)
    assert_type(lease.headers, dict[str, str])
    assert_type(lease.ack(), natslease.SettleResult)
results = queue.ack([*batch, "$JS.ACK..."])
assert_type(results, list[natslease.SettleResult])
assert_type(queue.consume(64, wait=30), Iterator[natslease.Lease])

several = client.reserve_any([queue, client.queue("sounds")], 64)
assert_type(several, natslease.AnyBatch[natslease.Lease])
assert_type(client.ping(), float)
assert_type(client.stats(), natslease.Stats)
assert_type(client.streams("job_*"), natslease.StreamList)
assert_type(queue.dead_letters(), list[natslease.DeadLetter])

try:
    queue.reserve(1)
except natslease.Unavailable as error:
    assert_type(error.retry_after, float)
    connection_error: ConnectionError = error
except natslease.DeadlineExceeded as error:
    timeout_error: TimeoutError = error


async def main() -> None:
    async with natslease.AsyncClient("nats://localhost:4222") as async_client:
        assert_type(async_client, natslease.AsyncClient)
        async_queue = async_client.queue("images")
        assert_type(async_queue, natslease.AsyncQueue)
        taken = await async_queue.reserve(64)
        assert_type(taken, natslease.LeaseBatch[natslease.AsyncLease])
        for async_lease in taken:
            async with async_lease:
                assert_type(async_lease.queue, natslease.AsyncQueue)
        assert_type(async_queue.consume(), AsyncIterator[natslease.AsyncLease])
        any_batch = await async_client.reserve_any([async_queue])
        assert_type(any_batch, natslease.AnyBatch[natslease.AsyncLease])


memory = Memory()
assert_type(memory.client(), natslease.Client)
assert_type(memory.async_client(), natslease.AsyncClient)
