"""Tries natslease against the server at argv[1], with nothing but its interpreter.

A round trip, the same in an event loop and in a forked child, an interrupted call, and an end of
the program while another thread is in a call. With "emulated" as argv[2] nothing is forked: qemu's
user mode itself fails (an assertion in its plugins/core.c) when the child of a process with several
threads starts one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import warnings

import natslease


def main(url: str, *, forks: bool) -> None:
    client = natslease.Client(url, timeout=5.0)
    queue = client.queue("smoke_{}_{}".format(*sys.version_info), ack_wait=30)
    queue.ensure()
    round_trip(queue)
    asyncio.run(in_a_loop(url, queue.stream))
    if forks:
        in_a_child(queue)
    interrupt(queue)
    threading.Thread(target=queue.reserve, args=(1,), kwargs={"wait": 4}, daemon=True).start()


async def in_a_loop(url: str, stream: str) -> None:
    async with natslease.AsyncClient(url, timeout=5.0) as client:
        queue = client.queue(stream)
        await queue.publish([b"x"])
        (lease,) = await queue.reserve(1, wait=1.0)
        await lease.ack()


def in_a_child(queue: natslease.Queue) -> None:
    warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            round_trip(queue)
            status = 0
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("the child failed")


def interrupt(queue: natslease.Queue) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    try:
        queue.reserve(1, wait=4.0)
    except KeyboardInterrupt:
        if time.monotonic() - began < 2:
            return
    raise SystemExit("a call could not be interrupted")


def round_trip(queue: natslease.Queue) -> None:
    payloads = [b"", b"\0", bytes(range(256)) * 100]
    report = queue.publish(payloads)
    if len(report.accepted) != len(payloads):
        raise SystemExit(f"published {payloads!r:.60}: {report}")
    batch = queue.reserve(len(payloads), wait=1.0)
    if [lease.data for lease in batch] != payloads:
        raise SystemExit(f"reserved {batch!r:.200}")
    results = queue.ack(batch)
    if any(result.status != "settled" for result in results):
        raise SystemExit(f"acknowledged: {results}")
    if queue.reserve(1, wait=0):
        raise SystemExit("an acknowledged task was delivered again")


main(sys.argv[1], forks=sys.argv[2:] != ["emulated"])
