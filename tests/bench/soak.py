"""Measures that nothing grows: over very many calls, and over very many forked children.

Memory is measured at many moments of a run. Its first part, in which everything gets as large as
it will be, is left out; what is left must be flat: the slope, less its own uncertainty, is compared
with what would be a leak of a few bytes a call.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import natslease
from natslease.testing import Server

POINTS = 40
# A leak of one small object a call or child would be more.
BYTES_PER_CALL = 24.0
BYTES_PER_CHILD = 1024.0


def memory() -> int:
    """The process's own resident bytes: what it does not share with files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def descriptors() -> int:
    """How many are open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (one of them is its own)


def slope(values: list[int], step: float) -> tuple[float, float]:
    """The slope of the later half, and its standard error, per unit of step."""
    later = values[len(values) // 2 :]
    x = [i * step for i in range(len(later))]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(later)
    spread = sum((a - mean_x) ** 2 for a in x)
    fitted = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, later, strict=True)) / spread
    rest = sum((b - mean_y - fitted * (a - mean_x)) ** 2 for a, b in zip(x, later, strict=True))
    return fitted, (rest / max(len(later) - 2, 1) / spread) ** 0.5


def watch(name: str, what: str, count: int, limit: float, work: Callable[[int], None]) -> bool:
    """Does the work in portions, and says whether memory and descriptors stayed flat."""
    each = max(count // POINTS, 1)
    used, opened = [], []
    began = time.monotonic()
    for _ in range(POINTS):
        work(each)
        gc.collect()
        used.append(memory())
        opened.append(descriptors())
    growth, error = slope(used, each)
    flat = growth - 2 * error <= limit and opened[-1] <= opened[len(opened) // 2]
    first, middle, last = (used[i] / 1e6 for i in (0, len(used) // 2, -1))
    print(
        f"{name}: {each * POINTS:,} {what} in {time.monotonic() - began:.0f} s; "
        f"memory {first:.1f} -> {middle:.1f} -> {last:.1f} MB, "
        f"slope {growth:.1f} +- {2 * error:.1f} bytes each (at most {limit:.0f}); "
        f"descriptors {opened[0]} -> {opened[-1]}: {'flat' if flat else 'IT GROWS'}",
        flush=True,
    )
    return flat


class Calls:
    """A mix of calls, synchronous and in event loops that come and go."""

    def __init__(self, url: str) -> None:
        self.client = natslease.Client(url, timeout=20)
        self.queue = self.client.queue("soak", max_ack_pending=100_000)
        self.queue.ensure()
        self.loops = natslease.AsyncClient(url, timeout=20)

    def synchronous(self, count: int) -> None:
        """Calls that work, that find nothing, that fail."""
        for i in range(count // 5):
            self.queue.publish([b"x" * 230])
            batch = self.queue.reserve(8, wait=1)
            self.queue.ack(batch)
            self.client.ping()
            with suppress(natslease.QueueNotFound):
                self.client.queue(f"missing_{i % 3}").info()

    def asynchronous(self, count: int) -> None:
        """Calls in a loop of its own, of which some are cancelled."""
        asyncio.run(self._in_a_loop(count))

    async def _in_a_loop(self, count: int) -> None:
        queue = self.loops.queue("soak_async", max_ack_pending=100_000)
        await queue.ensure()
        for i in range(count // 10):
            await queue.publish([b"x" * 230])
            calls = [asyncio.ensure_future(queue.reserve(1, wait=0.001)) for _ in range(7)]
            await asyncio.sleep(0)
            calls[i % 7].cancel()
            for batch in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(batch, list):
                    await queue.ack(batch)

    def fork(self, count: int) -> None:
        """Children that fork, connect and exit."""
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    self.queue.info()
                    status = 0
                finally:
                    os._exit(status)
            _, status = os.waitpid(pid, 0)
            if status:
                raise RuntimeError(f"a child ended with status {status}")


def main() -> int:
    """Runs the soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a twentieth of it, for CI")
    share = 20 if parser.parse_args().short else 1
    with Server() as server:
        calls = Calls(server.url)
        # What one run in ten grows by at first counts for more in a short one.
        limit = BYTES_PER_CALL * (10 if share > 1 else 1)
        flat = [
            watch("calls", "calls", 100_000 // share, limit, calls.synchronous),
            watch("asyncio", "calls", 100_000 // share, limit, calls.asynchronous),
            watch("fork", "children", 1_000 // share, BYTES_PER_CHILD * share, calls.fork),
        ]
        connections = server.connz()["num_connections"]
        print(f"{connections} connection at the end, of two clients and all children")
    return 0 if all(flat) and connections == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
