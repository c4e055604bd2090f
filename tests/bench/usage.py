"""What other processes use, as the kernel counts it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """A process's resident memory; with ``RssAnon`` only what it does not share with files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return int(value.split()[0]) * 1024 / 1e6
    raise RuntimeError(f"process {pid} has no {field}")


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 (nobody needs their paths)


class Cores:
    """How many cores some processes keep busy, from now on."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._began = time.perf_counter()
        self._before = self._seconds()

    def _seconds(self) -> float:
        ticks = 0
        for pid in self._pids:
            # The name before the last bracket may have spaces.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS

    def busy(self) -> float:
        """Their mean number since the beginning."""
        return (self._seconds() - self._before) / (time.perf_counter() - self._began)
