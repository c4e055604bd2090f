"""The end of the interpreter: no crash, no hang, no output, wherever calls are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

import natslease
from children import await_connections, python
from natslease.testing import Server

CHILDREN = int(os.environ.get("NATSLEASE_CHILDREN", "60"))
# From the end of the main thread; what is being given back may take a second of it.
LIMIT = 3.0

DAEMONS = """
import atexit, logging, random, sys, threading, time
import natslease

logging.basicConfig(level="ERROR")
client = natslease.Client(sys.argv[1], timeout=20, max_in_flight=1000, silence_timeout=20)
queue = client.queue("tasks", max_ack_pending=1_000_000)
queue.ensure()
CALLS = [
    client.ping,
    queue.info,
    lambda: queue.publish([b"x" * 1000] * 50),
    lambda: queue.reserve(1),
    lambda: queue.reserve(8, wait=0.05),
    lambda: queue.ack(queue.reserve(8)),
    lambda: client.reserve_any([queue, other], 4, wait=0.05),
    lambda: natslease.Client(sys.argv[1], name=f"of {threading.get_ident()}").ping(),
]
other = client.queue("other")
other.ensure()

def work(call):
    while True:
        try:
            call()
        except natslease.Unavailable:
            pass

for call in CALLS * 2:
    threading.Thread(target=work, args=(call,), daemon=True).start()
"""


def ends_quietly(server: Server, script: str, *arguments: str, **options: Any) -> None:
    began = time.monotonic()
    ended = float(python(script + "\nprint(time.monotonic())", server.url, *arguments, **options))
    assert began < ended
    assert time.monotonic() - ended < LIMIT


def test_daemon_threads_in_calls(nats_server: Server) -> None:
    for _ in range(max(CHILDREN // 4, 5)):
        ends_quietly(nats_server, DAEMONS + "time.sleep(0.1 * random.random())")


def test_daemon_threads_in_calls_on_a_frozen_server(nats_server: Server) -> None:
    script = DAEMONS + "print(); sys.stdin.readline(); time.sleep(0.2 * random.random())"
    for _ in range(max(CHILDREN // 12, 3)):
        try:
            ends_quietly(nats_server, script, when_ready=nats_server.freeze)
        finally:
            nats_server.thaw()


def test_daemon_threads_before_the_first_connection() -> None:
    script = """
import sys, threading, time
import natslease
client = natslease.Client(sys.argv[1], timeout=20, connect_timeout=20)
for _ in range(20):
    threading.Thread(target=client.ping, daemon=True).start()
print(time.monotonic())
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for _ in range(5):
            ended = float(python(script, f"nats://127.0.0.1:{silent.getsockname()[1]}"))
            assert time.monotonic() - ended < LIMIT


def test_threads_that_are_waited_for(nats_server: Server) -> None:
    script = """
import sys, threading
import natslease
queue = natslease.Client(sys.argv[1]).queue("tasks")
queue.ensure()
def work():
    queue.publish([b"x"] * 100)
    while batch := queue.reserve(7):
        queue.ack(batch)
    print(queue.info().messages)
threading.Thread(target=work).start()
"""
    assert python(script, nats_server.url) == "0\n"


def test_exit_handlers_may_use_the_client(nats_server: Server) -> None:
    script = """
import atexit, sys

def report(when):
    batch = queue.reserve(1, wait=1)
    print(when, batch[0].data, queue.ack(batch)[0].status)

atexit.register(report, "before the import")
import natslease
atexit.register(report, "after the import")
client = natslease.Client(sys.argv[1])
queue = client.queue("tasks")
queue.ensure()
queue.publish([b"1", b"2", b"3"])
atexit.register(report, "after the first use")
"""
    assert python(script, nats_server.url).splitlines() == [
        "after the first use b'1' settled",
        "after the import b'2' settled",
        "before the import b'3' settled",
    ]


def test_objects_that_outlive_their_module(nats_server: Server) -> None:
    """Finalizers that use clients when modules are half taken down: whatever happens, quietly."""
    script = """
import builtins, logging, sys
import natslease

logging.basicConfig(level="INFO", handlers=[logging.NullHandler()])

class Late:
    def __init__(self):
        self.client = natslease.Client(sys.argv[1])
        self.queue = self.client.queue("tasks")
        self.queue.ensure()
        self.queue.publish([b"x"])
        self.batch = self.queue.reserve(1)
        self.me = self

    def __del__(self, Exception=Exception):
        try:
            self.batch[0].ack()
            self.client.close()
        except Exception:
            pass

builtins.late = Late()
sys.late = Late()
keep = [natslease.Client(sys.argv[1], name=str(i)) for i in range(10)]
for client in keep:
    client.ping()
"""
    for _ in range(5):
        assert python(script, nats_server.url) == ""
    await_connections(nats_server, 0)


def test_an_event_loop_with_calls_in_flight(nats_server: Server) -> None:
    script = """
import asyncio, sys, threading, time
import natslease

async def main():
    client = natslease.AsyncClient(sys.argv[1])
    queue = client.queue("tasks")
    await queue.ensure()
    global waiting
    waiting = [asyncio.ensure_future(queue.reserve(1, wait=4)) for _ in range(20)]
    await asyncio.sleep(0.1 if sys.argv[2] == "run" else 0.01)
    if sys.argv[2] == "thread":
        ready.set()
        await asyncio.sleep(100)

ready = threading.Event()
if sys.argv[2] == "run":
    asyncio.run(main())
else:
    threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
    ready.wait(20)
"""
    for where in ("run", "thread"):
        for _ in range(5):
            ends_quietly(nats_server, script, where)


@pytest.mark.parametrize("ending", ["raise SystemExit(3)", "1 / 0", "os._exit(3)", "os.abort()"])
def test_other_endings(nats_server: Server, ending: str) -> None:
    script = (
        DAEMONS + f"import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n{ending}"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, nats_server.url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    complaint = {"1 / 0": "ZeroDivisionError"}.get(ending, "")
    assert done.returncode == {"1 / 0": 1, "os.abort()": -6}.get(ending, 3)
    assert done.stderr.count("Traceback") == bool(complaint)
    assert complaint in done.stderr
    await_connections(nats_server, 0)


def test_tasks_of_cancelled_calls_are_back_when_the_program_has_ended(
    nats_server: Server,
) -> None:
    """What came for a call that had given up is with nobody: the program must not take it along."""
    script = """
import asyncio, sys, threading, time
import natslease

async def main():
    client = natslease.AsyncClient(sys.argv[1])
    # As long as a thread has it, it is not collected, not even at the end.
    threading.Thread(target=lambda _: time.sleep(600), args=(client,), daemon=True).start()
    queue = client.queue("tasks", ack_wait=600)
    await queue.ensure()
    await queue.publish([b"x"] * 200)
    calls = [asyncio.ensure_future(queue.reserve(20, wait=2)) for _ in range(10)]
    await asyncio.sleep(float(sys.argv[2]))  # the pull is out, its tasks are on their way
    for call in calls:
        call.cancel()
    for _ in range(300):  # tasks are held for the next call for 800 ms
        if client.stats().late_messages:
            break
        await asyncio.sleep(0.001)
    taken = [call.result() for call in calls if call.done() and not call.cancelled()]
    print(sum(map(len, taken)))

asyncio.run(main())
"""
    for i in range(8):
        taken = int(python(script, nats_server.url, str(i * 0.0003)))
        with natslease.Client(nats_server.url) as client:
            queue = client.queue("tasks")
            assert len(queue.reserve(200, wait=1)) == 200 - taken
            queue.delete()
