"""Promise 9: whatever blocks can be interrupted, and nothing is lost by that."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import natslease
from children import python
from natslease.testing import Server

# From the signal until the call has raised, less how late a thread beside it woke.
LIMIT = 0.15
TOOLS = Path(__file__).parents[1] / "tools"
ROUNDS = int(os.environ.get("NATSLEASE_INTERRUPTS", "1500"))

# Makes each call in turn, is sent a signal while it blocks, and prints how long it took to raise.
# argv: URL, signal, handlers, what is blocked by, names of calls.
PROGRAM = """
import faulthandler, json, os, signal, sys, threading, time

url, name, how, blocked, *calls = sys.argv[1:]
number = getattr(signal, name)

class Stopped(BaseException):
    pass

def stop(*_):
    raise Stopped

def install():
    if name == "SIGINT" and "own" not in how:
        signal.signal(number, signal.default_int_handler)
    else:
        signal.signal(number, stop)
    if "faulthandler" in how:
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR2)

if how.startswith("before"):
    install()

import natslease
from timing import Sleeper
natslease.Client("nats://localhost:1").stats()  # loads the extension

if how.startswith("after"):
    install()

client = natslease.Client(url, timeout=60, connect_timeout=60, silence_timeout=60)
queue = client.queue("tasks", dead_letters="dead")
other = client.queue("other")
leases = []
if blocked != "a dial":
    for q in (queue, other):
        q.ensure()
    queue.publish([b"x"] * 20)
    leases = queue.reserve(20)

def consume():
    for _ in queue.consume(5, wait=30):
        pass

def block():
    with leases[1]:
        pass

CALLS = {
    "ping": client.ping,
    "ensure": queue.ensure,
    "info": queue.info,
    "publish": lambda: queue.publish([b"x"]),
    "reserve": lambda: queue.reserve(5),
    "reserve and wait": lambda: queue.reserve(5, wait=30),
    "reserve any": lambda: client.reserve_any([queue, other], 5, wait=30),
    "consume": consume,
    "ack one": lambda: leases[0].ack(),
    "ack all": lambda: queue.ack(leases),
    "nak": lambda: queue.nak(leases),
    "release": lambda: queue.release(leases),
    "extend": lambda: leases[0].extend(),
    "term": lambda: leases[0].term(),
    "block": block,
    "dead letters": queue.dead_letters,
    "purge": queue.purge,
    "delete": other.delete,
    "publish much": lambda: queue.publish([b"x" * 100_000] * 400),
    "close": lambda: client.close(timeout=60),
}

def send():
    global sent
    time.sleep(0.12)
    sent = time.monotonic()
    os.kill(os.getpid(), number)

if blocked == "a frozen server":
    print("ready", flush=True)
    sys.stdin.readline()
late = {}
with Sleeper.beside() as sleeper:
    for call in calls or [call for call in CALLS if call != "close"]:
        sender = threading.Thread(target=send)
        try:
            try:
                sender.start()
                CALLS[call]()
                raise SystemExit(f"{call} did not block")
            except (KeyboardInterrupt, Stopped):
                ended = time.monotonic()
        finally:
            sender.join()
        late[call] = ended - sent - sleeper.lateness(sent, ended)
    # What goes on after its call ends soon, too.
    from natslease._native import native
    from natslease._natslease import NumHandles
    deadline = time.monotonic() + 10
    while (native().tickets(), NumHandles()) != (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
print(json.dumps([late, native().tickets(), NumHandles()]), flush=True)
os._exit(0)  # the server is frozen: its client would be waited for
"""

HANDLERS = (
    "before",
    "after",
    "before, own",
    "after, own",
    "before, faulthandler",
    "after, faulthandler",
)


def interrupted(url: str, *arguments: str, **options: Any) -> None:
    output = python(
        PROGRAM, url, *arguments, env={**os.environ, "PYTHONPATH": str(TOOLS)}, **options
    )
    late, tickets, handles = json.loads(output)
    assert (tickets, handles) == (0, 0)
    assert [(call, late[call]) for call in late if late[call] > LIMIT] == []


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_promise_9_every_call_on_a_frozen_server(
    nats_server: Server, number: str, how: str
) -> None:
    interrupted(nats_server.url, number, how, "a frozen server", when_ready=nats_server.freeze)


@pytest.mark.parametrize("how", HANDLERS)
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_promise_9_whatever_handlers_there_are(nats_server: Server, number: str, how: str) -> None:
    calls = ("reserve and wait", "ack one", "publish")
    interrupted(
        nats_server.url, number, how, "a frozen server", *calls, when_ready=nats_server.freeze
    )


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_promise_9_a_full_socket(nats_server: Server, number: str) -> None:
    calls = ("publish much", "publish much", "reserve and wait", "ack all", "ping")
    interrupted(
        nats_server.url, number, "before", "a frozen server", *calls, when_ready=nats_server.freeze
    )


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_promise_9_closing_while_a_pull_is_out(nats_server: Server, number: str) -> None:
    calls = ("reserve and wait", "close")
    interrupted(
        nats_server.url, number, "before", "a frozen server", *calls, when_ready=nats_server.freeze
    )


@pytest.mark.parametrize("accepts", [True, False], ids=["never speaks", "never accepts"])
def test_promise_9_the_first_dial(accepts: bool) -> None:
    calls = ("ping", "ensure", "publish", "publish much", "reserve", "reserve and wait", "consume")
    with socket.create_server(("127.0.0.1", 0), backlog=64 if accepts else 0) as listener:
        filler = [] if accepts else _fill(listener)
        url = f"nats://127.0.0.1:{listener.getsockname()[1]}"
        interrupted(url, "SIGINT", "before", "a dial", *calls)
        for connection in filler:
            connection.close()


def _fill(listener: socket.socket) -> list[socket.socket]:
    """Leaves no room for connections that nobody has accepted."""
    filler = []
    for _ in range(8):
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(listener.getsockname())
        filler.append(connection)
    return filler


def test_promise_9_the_name_of_the_server(tmp_path: Path) -> None:
    """A name server that never answers: the first use blocks on the host's address."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.99\n")
    elsewhere = f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec "
    under = ("unshare", "--mount", "--map-root-user", "sh", "-c", elsewhere + '"$0" "$@"')
    try:
        tried = subprocess.run([*under, "true"], capture_output=True, text=True, check=False)
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        silent.bind(("127.0.0.99", 53))
    except OSError as error:
        pytest.skip(f"a name server of our own needs unshare and port 53: {error}")
    if tried.returncode != 0:
        pytest.skip(f"a name server of our own needs unshare: {tried.stderr}")
    with silent:
        calls = ("ping", "reserve and wait", "publish")
        interrupted("nats://somewhere.test:4222", "SIGINT", "before", "a dial", *calls, under=under)
        silent.settimeout(1)
        assert b"somewhere" in silent.recv(512)


# Interrupts reserve and ack wherever they are, in a process that goes on afterwards. Each task must
# be held by somebody, or be back in its queue soon.
HAMMER = """
import random, signal, sys, time
import natslease
from natslease._native import native
from natslease._natslease import NumHandles

class Late(Exception):
    pass

armed = False
interrupts = 0

def late(*_):
    global armed
    if armed:
        armed = False
        raise Late

def interrupted(call):
    # What the call returns, unless it is interrupted.
    global armed, interrupts
    result = []
    try:
        armed = True
        signal.setitimer(signal.ITIMER_REAL, random.random() * 1.5 * typical + 1e-6)
        result = call()
        armed = False
    except Late:
        interrupts += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    return result

rounds = int(sys.argv[2])
client = natslease.Client(sys.argv[1], max_queue_wait=5)
queue = client.queue("tasks", ack_wait=600, max_ack_pending=10_000, max_deliver=100)
queue.ensure()
queue.publish([b"%d" % i for i in range(100)])
signal.signal(signal.SIGALRM, late)
random.seed(int(sys.argv[3]))
typical = 0.0005
for _ in range(rounds):
    began = time.perf_counter()
    batch = interrupted(lambda: queue.reserve(random.choice([1, 3, 64]), wait=0.2))
    if batch:
        typical = 0.99 * typical + 0.01 * (time.perf_counter() - began)
    for result in queue.release(batch):
        assert result.status == "settled", result
held = {}
deadline = time.monotonic() + 5
while len(held) < 100 and time.monotonic() < deadline:
    held.update((lease.data, lease) for lease in queue.reserve(100, wait=0.5))
assert len(held) == 100, f"{100 - len(held)} are lost"
assert {r.status for r in queue.release(held.values())} == {"settled"}
assert (native().tickets(), NumHandles()) == (0, 0), (native().tickets(), NumHandles())
assert interrupts > rounds / 10, interrupts

# An ack that was interrupted is done, or not; the leases do not say so before somebody knows.
while (batch := queue.reserve(3, wait=0.3)):
    interrupted(lambda: queue.ack(batch))
    assert [lease.settled for lease in batch] in ([True] * len(batch), [False] * len(batch))
    assert {r.status for r in queue.ack(batch)} == {"settled"}
assert queue.info().messages == 0
print("ok")
"""


@pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="CPython 3.10 can interrupt a caller after its call has returned, and drop the result",
)
def test_promise_9_interrupts_lose_nothing(nats_server: Server) -> None:
    seed = str(int.from_bytes(os.urandom(4), "big"))
    assert python(HAMMER, nats_server.url, str(ROUNDS), seed) == "ok\n", f"seed {seed}"


def test_promise_9_what_an_interrupted_program_held_is_back_when_it_has_ended(
    nats_server: Server,
) -> None:
    script = """
import signal, sys
import natslease
queue = natslease.Client(sys.argv[1]).queue("tasks", ack_wait=600)
queue.ensure()
queue.publish([b"%d" % i for i in range(30)])
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    for lease in queue.consume(20, wait=5):
        with lease:
            signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    sys.exit()
"""
    python(script, nats_server.url)
    with natslease.Client(nats_server.url) as client:
        assert len(client.queue("tasks").reserve(30, wait=1)) == 30


def test_promise_9_signals_reach_whoever_waits_for_them(nats_server: Server) -> None:
    """The threads of the core do not take signals that the program's own threads block."""
    script = """
import os, signal, sys, time
import natslease
natslease.Client(sys.argv[1]).ping()
for number in (signal.SIGUSR1, signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    os.kill(os.getpid(), number)
    # Nobody waits for it yet: it is to stay.
    assert number in signal.sigpending(), number
    assert signal.sigtimedwait({number}, 5).si_signo == number
print("ok")
"""
    assert python(script, nats_server.url) == "ok\n"


def test_promise_9_timers_and_children_are_undisturbed(nats_server: Server) -> None:
    script = """
import os, signal, subprocess, sys, time
import natslease

counts = dict.fromkeys((signal.SIGALRM, signal.SIGPROF, signal.SIGVTALRM, signal.SIGCHLD), 0)

def count(number, _):
    counts[number] += 1

for number in counts:
    signal.signal(number, count)
queue = natslease.Client(sys.argv[1]).queue("tasks")
queue.ensure()
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
signal.setitimer(signal.ITIMER_PROF, 0.005, 0.005)
signal.setitimer(signal.ITIMER_VIRTUAL, 0.005, 0.005)
deadline = time.monotonic() + 60
exits = []
while (len(exits) < 10 or min(counts.values()) < 10) and time.monotonic() < deadline:
    child = subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({len(exits)})"])
    queue.publish([b"x"] * 50)
    while batch := queue.reserve(7):
        assert {r.status for r in queue.ack(batch)} == {"settled"}
    exits.append(child.wait())
for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF, signal.ITIMER_VIRTUAL):
    signal.setitimer(timer, 0)  # at the interpreter's end there are no handlers any more
assert exits == list(range(len(exits)))
assert min(counts.values()) >= 10, counts
print("ok")
"""
    assert python(script, nats_server.url) == "ok\n"


def test_promise_9_a_broken_pipe_ends_only_the_connection() -> None:
    """Programs whose output is piped often give SIGPIPE back its default, which is to die."""
    script = """
import logging, signal, threading, sys
import natslease
from natslease.testing import Server

logging.getLogger("natslease").addHandler(logging.NullHandler())
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
lost = 0
for i in range(15):
    with Server() as server:
        client = natslease.Client(server.url, timeout=5)
        queue = client.queue("tasks")
        queue.ensure()
        threading.Timer(0.01 + 0.002 * i, server.kill).start()
        try:
            while not queue.publish([b"x" * 2_000] * 2_000).failed:
                pass
        except natslease.Error:
            pass
        lost += client.stats().sessions_lost
assert lost == 15, lost
assert signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
print("ok")
"""
    assert python(script) == "ok\n"
