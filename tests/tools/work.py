"""What the processes of programs do in tests, and the account of it."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from typing import TypedDict

import natslease
from children import await_connections, connections
from natslease.testing import Server


class Done(TypedDict):
    """What a process has done: ids of tasks, and how many connections it has opened so far."""

    pid: int
    published: list[str]
    acked: list[str]
    opened: int


def round_trip(queue: natslease.Queue) -> Done:
    """Publishes a task, and does one, which may be another process's."""
    report = queue.publish([b"from %d" % os.getpid()])
    (lease,) = queue.reserve(1, wait=10)
    lease.ack()
    return _done(report, lease.id, queue._client.stats())


async def async_round_trip(queue: natslease.AsyncQueue) -> Done:
    """As ``round_trip``, awaited."""
    report = await queue.publish([b"from %d" % os.getpid()])
    (lease,) = await queue.reserve(1, wait=10)
    await lease.ack()
    return _done(report, lease.id, queue._client.stats())


def _done(report: natslease.PublishReport, acked: str, stats: natslease.Stats) -> Done:
    return {
        "pid": os.getpid(),
        "published": [result.id for result in report.accepted],
        "acked": [acked],
        "opened": stats.sessions_opened,
    }


def reports(output: str, when: str = r"\w+") -> list[Done]:
    """What processes have done by their output: see ``preloaded.report``."""
    lines = re.findall(rf'\b{when}: (\{{"pid".*\}})$', output, re.MULTILINE)
    return [json.loads(line) for line in lines]


def pids(done: Iterable[Done]) -> set[int]:
    """The processes that have worked."""
    return {one["pid"] for one in done}


def processes_of(server: Server) -> dict[int, int]:
    """The ids of its connections by those of their processes, which their names end with."""
    found = [(int(name.rpartition(" ")[2]), cid) for cid, name in connections(server).items()]
    assert len(dict(found)) == len(found), f"a process has two: {found}"
    return dict(found)


def await_processes(server: Server, expected: set[int]) -> dict[int, int]:
    """The connections, when each of these processes has one and there is no other."""
    await_connections(server, len(expected))
    found = processes_of(server)
    assert set(found) == expected
    return found


def check_account(server: Server, done: list[Done]) -> None:
    """After the end of a program: it has left no connection, and all of its work was done once."""
    await_connections(server, 0)
    published = Counter(task for one in done for task in one["published"])
    acked = Counter(task for one in done for task in one["acked"])
    assert published == acked
    assert set(published.values()) == {1}
    assert {one["opened"] for one in done} == {1}
    with natslease.Client(server.url) as client:
        assert client.queue("tasks").info().messages == 0
