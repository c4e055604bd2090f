"""What the server says of the streams of all jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import natslease

from . import _names


async def list_snapshots(client: natslease.AsyncClient) -> list[dict[str, Any]]:
    """One entry for each stream of a job."""
    snapshots = []
    for stream in await client.streams(timeout=_names.JETSTREAM_TIMEOUT):
        job_id = _names.job_of_stream(stream.name)
        if job_id is None:
            continue
        # Local and without a time zone: what the application compares with.
        created = datetime.fromtimestamp(stream.created) if stream.created else None  # noqa: DTZ006
        snapshots.append(
            {
                "job_id": job_id,
                "stream_name": stream.name,
                "created": created,
                "messages": stream.messages,
                "num_redelivered": None,
            }
        )
    return snapshots


async def populate_redelivered(
    state_of: Callable[[int], Awaitable[Any]],
    snapshots: list[dict[str, Any]],
    concurrency: int,
) -> None:
    """Asks for each job's counters, a few at a time."""
    places = asyncio.Semaphore(max(concurrency, 1))

    async def fill(snapshot: dict[str, Any]) -> None:
        async with places:
            try:
                state = await state_of(snapshot["job_id"])
            except natslease.Error:
                return
        if state is not None:
            snapshot["num_redelivered"] = state.num_redelivered

    await asyncio.gather(*map(fill, snapshots))
