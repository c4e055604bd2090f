"""Promise 8: a forked child just works, on a connection of its own; the parent notices nothing.

Pools and programs that fork are in tests/programs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import natslease
from children import (
    Child,
    await_connections,
    connections,
    descriptors,
    in_child,
    line,
    python,
    running,
)
from natslease.testing import Server

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

CHILDREN = int(os.environ.get("NATSLEASE_CHILDREN", "60"))


@pytest.fixture
def client(nats_url: str) -> Iterator[natslease.Client]:
    with natslease.Client(nats_url, timeout=10) as client:
        yield client


@pytest.fixture
def queue(client: natslease.Client) -> natslease.Queue:
    queue = client.queue("tasks")
    queue.ensure()
    return queue


def round_trip(queue: natslease.Queue) -> int:
    """Uses a queue, and returns how many connections this process has opened for it."""
    queue.publish([b"from %d" % os.getpid()])
    (lease,) = queue.reserve(1, wait=5)
    lease.ack()
    return queue._client.stats().sessions_opened


def sockets() -> set[str]:
    return {name for name in descriptors().values() if name.startswith("socket:")}


def test_promise_8_the_parent_has_only_imported(nats_url: str) -> None:
    script = """
import os, sys
import natslease
if os.fork() == 0:
    client = natslease.Client(sys.argv[1])
    client.ping()
    print("ping", flush=True)
    os._exit(0)
os.wait()
natslease.Client(sys.argv[1]).ping()
print("pong")
"""
    assert python(script, nats_url) == "ping\npong\n"


def test_promise_8_the_parent_has_a_client(nats_url: str) -> None:
    client = natslease.Client(nats_url)
    queue = client.queue("tasks")
    assert in_child(lambda: queue.ensure().created)
    assert not client.stats().connected
    assert not queue.ensure().created


def test_promise_8_the_parent_is_connected(
    nats_server: Server, client: natslease.Client, queue: natslease.Queue
) -> None:
    (before,) = connections(nats_server)

    def work() -> tuple[int, set[int]]:
        return round_trip(queue), set(connections(nats_server))

    for _ in range(3):
        opened, seen = in_child(work)
        assert opened == 1
        assert len(seen) == 2
        assert before in seen
    assert set(await_connections(nats_server, 1)) == {before}
    assert round_trip(queue) == 1
    assert set(connections(nats_server)) == {before}


def test_promise_8_leases_of_the_parent_are_settled_by_the_child(queue: natslease.Queue) -> None:
    queue.publish([b"%d" % i for i in range(6)])
    leases = queue.reserve(6)

    def settle() -> list[str]:
        leases[0].ack()
        leases[1].extend()
        leases[1].term("no")
        leases[2].nak()
        return [leases[3].release().status, *(r.status for r in queue.ack(leases[4:]))]

    assert in_child(settle) == ["settled"] * 3
    assert queue.info().messages == 2
    assert sorted(lease.data for lease in queue.reserve(5)) == [b"2", b"3"]


def test_promise_8_leases_of_the_child_are_settled_by_the_parent(queue: natslease.Queue) -> None:
    queue.publish([b"a", b"b"])
    subjects = in_child(lambda: [lease.ack_subject for lease in queue.reserve(2)])
    assert [r.status for r in queue.ack(subjects)] == ["settled", "settled"]
    assert queue.info().messages == 0


def test_promise_8_four_generations(nats_server: Server, queue: natslease.Queue) -> None:
    def generation(n: int) -> list[int]:
        opened = round_trip(queue)
        if n == 4:
            # Each of its ancestors is there, and has one.
            assert len(await_connections(nats_server, 5)) == 5
            return [opened]
        below: list[int] = in_child(lambda: generation(n + 1))
        assert round_trip(queue) == 1
        return [opened, *below]

    assert generation(0) == [1] * 5
    await_connections(nats_server, 1)


def test_promise_8_a_client_that_the_child_closes(
    nats_server: Server, client: natslease.Client, queue: natslease.Queue
) -> None:
    (before,) = connections(nats_server)

    def close_used() -> None:
        round_trip(queue)
        client.close()
        with pytest.raises(natslease.ClientClosed):
            client.ping()

    in_child(close_used)
    in_child(client.close)
    assert round_trip(queue) == 1
    assert set(await_connections(nats_server, 1)) == {before}


def test_promise_8_the_async_api(nats_server: Server) -> None:
    async def work(queue: natslease.AsyncQueue) -> bytes:
        await queue.ensure()
        await queue.publish([b"x"])
        (lease,) = await queue.reserve(1, wait=5)
        await lease.ack()
        return lease.data

    async def main() -> None:
        async with natslease.AsyncClient(nats_server.url) as client:
            queue = client.queue("tasks")
            assert await work(queue) == b"x"
            (before,) = connections(nats_server)
            waiting = asyncio.create_task(queue.reserve(1, wait=20))
            await asyncio.sleep(0)
            child = Child(lambda: asyncio.run(work(client.queue("other"))))
            assert await asyncio.to_thread(child.result) == b"x"
            await queue.publish([b"y"])
            (lease,) = await waiting
            assert lease.data == b"y"
            assert set(connections(nats_server)) == {before}

    asyncio.run(main())


def test_promise_8_inherited_sockets_are_closed(
    nats_server: Server, client: natslease.Client, queue: natslease.Queue
) -> None:
    ours = sockets()
    assert ours

    def work() -> set[str]:
        at_once = sockets()
        round_trip(queue)
        left = descriptors().values()
        assert not [name for name in left if "memfd" in name or "natslease" in name]
        return at_once

    assert len(ours - in_child(work)) == 1


def test_promise_8_the_server_sees_the_end_of_a_parent_whose_child_lives(
    nats_server: Server,
) -> None:
    script = """
import os, sys, time
import natslease
client = natslease.Client(sys.argv[1])
client.ping()
pid = os.fork()
if pid == 0:
    time.sleep(600)
    os._exit(0)
print(pid, flush=True)
time.sleep(600)
"""
    with running(script, nats_server.url) as parent:
        child = int(line(parent))
        try:
            await_connections(nats_server, 1)
            parent.kill()
            await_connections(nats_server, 0)
            assert Path(f"/proc/{child}").exists()
        finally:
            os.kill(child, signal.SIGKILL)


def test_promise_8_no_socket_is_shared_while_connections_come_and_go(nats_server: Server) -> None:
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            with natslease.Client(nats_server.url, name="here and gone") as client:
                client.ping()

    def find_shared() -> list[str]:
        # Connected ones to the server: what the test itself has is none of these.
        port = f":{nats_server.port:04X}"
        inodes = set()
        for row in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[2].endswith(port) and fields[3] == "01":
                inodes.add(f"socket:[{fields[9]}]")
        return sorted(inodes & sockets())

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(CHILDREN):
            assert in_child(find_shared) == []
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def calls_in_flight(client: natslease.Client, n: int) -> Iterator[Callable[[], int]]:
    """Threads that are inside calls; yields how many calls were finished so far."""
    stop = threading.Event()
    counts = [0] * n
    failures: list[BaseException] = []
    queue = client.queue("busy")
    queue.ensure()

    def work(i: int) -> None:
        try:
            while not stop.is_set():
                queue.publish([b"x"])
                queue.ack(queue.reserve(1, wait=0.05))
                client.ping()
                counts[i] += 1
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(counts)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_promise_8_children_while_16_threads_are_inside_calls(
    nats_server: Server, client: natslease.Client, queue: natslease.Queue
) -> None:
    with calls_in_flight(client, 16) as calls:
        in_child(lambda: round_trip(queue))  # what is opened once is open now
        before = descriptors()
        (cid,) = await_connections(nats_server, 1)
        children: list[Child] = []
        for _ in range(CHILDREN):
            children.append(Child(lambda: round_trip(queue)))
            if len(children) == 4:
                assert [child.result() for child in children] == [1] * 4
                children.clear()
        assert [child.result() for child in children] == [1] * len(children)
        assert set(await_connections(nats_server, 1)) == {cid}
        done = calls()
        deadline = time.monotonic() + 20
        while calls() < done + 16:
            assert time.monotonic() < deadline, "the threads are stuck"
            time.sleep(0.01)
        assert descriptors() == before
    assert client.stats().sessions_opened == 1


def test_promise_8_forking_in_several_threads(
    nats_server: Server, client: natslease.Client, queue: natslease.Queue
) -> None:
    failures: list[BaseException] = []
    round_trip(queue)
    before = descriptors()

    def work() -> None:
        try:
            for _ in range(5):
                # The child leaves by os._exit: it must not return from its thread.
                assert in_child(client.ping) > 0
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert round_trip(queue) == 1
    assert descriptors() == before


def test_promise_8_fork_in_a_signal_handler_during_a_call(queue: natslease.Queue) -> None:
    script = """
import os, signal, sys
import natslease

def fork(*_):
    global pid
    pid = os.fork()

queue = natslease.Client(sys.argv[1]).queue("tasks")
signal.signal(signal.SIGALRM, fork)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    outcome = queue.reserve(1, wait=1)
except natslease.ConnectionLost as error:
    outcome = f"{error.outcome}: {error}"
if pid == 0:  # back in the call of the parent
    print(outcome, queue.info().messages, flush=True)
    os._exit(0)
os.wait()
print(outcome)
"""
    child, parent = python(script, queue._client._options["servers"][0]).splitlines()
    assert child.startswith("unknown: the process was forked during this call")
    assert child.endswith(" 0")
    assert parent == "[]"


def test_promise_8_a_program_that_a_subprocess_prepares(
    nats_server: Server, queue: natslease.Queue
) -> None:
    (before,) = connections(nats_server)
    for _ in range(3):
        subprocess.run(["true"], preexec_fn=os.getpid, check=True, timeout=60)
        subprocess.run(["true"], check=True, timeout=60)
    assert round_trip(queue) == 1
    assert set(connections(nats_server)) == {before}


def test_promise_8_an_ended_child_leaves_no_file(
    queue: natslease.Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    in_child(lambda: round_trip(queue))
    in_child(lambda: without_memfd(lambda: round_trip(queue)))
    assert list(tmp_path.iterdir()) == []


def without_memfd(work: Callable[[], Any]) -> Any:
    import tempfile

    def refuse(name: str, flags: int = 0) -> int:
        raise PermissionError(f"memfd_create is forbidden: {name} {flags}")

    os.memfd_create = refuse
    tempfile.tempdir = None  # it is looked for anew
    return work()


def test_promise_8_without_memfd_a_temporary_file_is_loaded(
    queue: natslease.Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def work() -> str:
        round_trip(queue)
        return Path("/proc/self/maps").read_text()

    maps = in_child(lambda: without_memfd(work))
    assert f"{tmp_path}/natslease-" in maps


def not_loaded(queue: natslease.Queue) -> str:
    started = time.monotonic()
    with pytest.raises(natslease.NotLoaded) as raised:
        queue.info()
    assert time.monotonic() - started < 10
    assert isinstance(raised.value, ImportError)
    assert raised.value.outcome == "not_sent"
    return str(raised.value)


def test_promise_8_where_no_copy_can_be_written(queue: natslease.Queue) -> None:
    import resource

    def work() -> str:
        # The one limit that holds for root, too, and for files in memory.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        return not_loaded(queue)

    text = in_child(work)
    for part in ("TMPDIR", "spawn", "File too large"):
        assert part in text
    round_trip(queue)


def test_promise_8_where_there_is_no_place_for_a_copy(queue: natslease.Queue) -> None:
    def work() -> str:
        import tempfile

        def nowhere(*_: object) -> list[str]:
            return ["/nowhere"]

        tempfile._candidate_tempdir_list = nowhere  # type: ignore[attr-defined]
        return str(without_memfd(lambda: not_loaded(queue)))

    text = in_child(work)
    for part in ("TMPDIR", "spawn", "memfd_create is forbidden", "/nowhere"):
        assert part in text


def test_promise_8_a_line_of_processes_that_is_too_long(nats_url: str) -> None:
    # Copies fill up the same room whether they are those of ancestors or not: a real line of
    # that many processes would take a minute.
    script = """
import os, sys
import natslease
from natslease import _native
clients = []
for generation in range(1, 400):
    _native._current = None
    try:
        clients.append(natslease.Client(sys.argv[1]))
    except natslease.NotLoaded:
        break
client = clients[-1]
if os.fork():
    assert os.wait()[1] == 0
    client.ping()
else:
    try:
        client.ping()
    except natslease.NotLoaded as error:
        print(generation, error, flush=True)
        os._exit(0)
"""
    generation, text = python(script, nats_url).split(" ", 1)
    assert int(generation) > 100
    assert "generations" in text
    assert "spawn" in text
    assert "/./" not in text


def test_promise_8_siblings_choose_differently(queue: natslease.Queue) -> None:
    """Fork copies what random numbers are seeded from: ids must not repeat among children."""

    def work() -> list[str]:
        return [r.id for r in queue.publish([b"x"] * 20).accepted]

    ids = [i for child in [Child(work) for _ in range(5)] for i in child.result()]
    assert len(ids) == len(set(ids)) == 100


def test_promise_8_a_first_use_in_many_threads_of_a_child(
    nats_server: Server, queue: natslease.Queue
) -> None:
    def work() -> int:
        start = threading.Barrier(20)
        failures: list[BaseException] = []

        def use() -> None:
            try:
                start.wait()
                round_trip(queue)
            except BaseException as error:  # noqa: BLE001 (shown by the test)
                failures.append(error)

        threads = [threading.Thread(target=use) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(connections(nats_server)) == 2
        return queue._client.stats().sessions_opened

    assert in_child(work) == 1


def test_promise_8_faults_in_a_child_are_reported(nats_url: str) -> None:
    """The handlers of two Go runtimes and faulthandler's are chained: a crash is still told."""
    script = """
import faulthandler, os, sys
import natslease
if "before" in sys.argv[2]:
    faulthandler.enable()
client = natslease.Client(sys.argv[1])
client.ping()
if "after" in sys.argv[2]:
    faulthandler.enable()
for _ in range(int(sys.argv[3])):
    if os.fork():
        _, status = os.wait()
        os._exit(abs(os.waitstatus_to_exitcode(status)))
    client.ping()
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
faulthandler._sigsegv()
"""
    for when in ("before", "after", "before and after"):
        for generations in (0, 1, 2):
            done = subprocess.run(
                [sys.executable, "-c", script, nats_url, when, str(generations)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert "Segmentation fault" in done.stderr, (when, generations, done.stderr)
            assert abs(done.returncode) == signal.SIGSEGV, (when, generations, done)
