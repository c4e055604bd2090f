"""Measures natslease beside the peers of rows.py: enqueueing, working off, and what faults do.

    python -m peers            writes docs/explanation/peers.json
    python -m peers --page     writes the page and the picture, from what is recorded there
    python -m peers --short    as little as possible, for CI
    python -m peers --row RQ   only this; may be repeated; nothing is written

Nothing is checked about time: ratios are to be read, from a quiet machine. It fails where a peer
does not do what is asked: enqueue all, work off all, acknowledge all.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import machine
import natslease
from natslease.testing import find_server

from . import faults, page
from .brokers import Brokers
from .measure import Size, measure
from .plots import plot
from .rows import ROWS, Row

FULL = Size(singles=400, seconds=0.8, many=8_000, work=2_048, pings=60)
SHORT = Size(singles=3, seconds=1.0, many=64, work=128, pings=2)
ROUNDS = 2
BLOCKED_CAP = 32.0  # seconds: longer than a pool of psycopg waits for a first connection
KILLED_CAP = 75.0  # longer than natslease's lease by default, and RQ's shortest


def speed(brokers: Brokers, rows: Sequence[Row], size: Size, rounds: int) -> dict[str, Any]:
    """All rows in turns; the one that begins is another one in each round."""
    values: dict[str, dict[str, list[float]]] = {row.name: defaultdict(list) for row in rows}
    for round_ in range(rounds):
        first = round_ * len(rows) // rounds
        for row in [*rows[first:], *rows[:first]]:
            progress(f"round {round_ + 1} of {rounds}: {row.name}")
            for what, found in measure(brokers, row, size).items():
                values[row.name][what] += found
    return values


def outages(rows: Sequence[Row], blocked_cap: float, killed_cap: float) -> dict[str, Any]:
    """What the faults do; those of workers beside the others, with brokers of their own."""
    progress("faults")
    with Brokers() as frozen, Brokers() as others, ThreadPoolExecutor(1) as pool:
        killed = pool.submit(faults.killed, others, rows, killed_cap)
        blocked = faults.blocked(frozen, rows, blocked_cap)
        fork = faults.forked(frozen, rows)
        return {"blocked": blocked, "fork": fork, "killed": killed.result()}


def recorded(rows: Sequence[Row], missing: dict[str, str]) -> dict[str, Any]:
    """What is known before anything is measured."""
    programs = {
        "nats-server": [str(find_server()), "--version"],
        "Redis": ["redis-server", "--version"],
        "PostgreSQL": ["postgres", "--version"],
    }
    versions = {"Python": platform.python_version(), "natslease": natslease.__version__}
    distributions = {row.distribution for row in rows} - {"natslease"}
    versions |= {name: version(name) for name in sorted(distributions)}
    for name, command in programs.items():
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        words = [word.removeprefix("v=").removeprefix("v") for word in done.stdout.split()]
        versions[name] = next(word for word in words if word[:1].isdigit())
    return {
        "machine": {
            "date": time.strftime("%Y-%m-%d"),
            "cpu": machine.cpu(),
            "load": machine.load().split()[0],
            "kernel": f"{platform.system()} {platform.release()}",
            "versions": versions,
        },
        "missing": missing,
        "cases": faults.CASES,
        "timeout": faults.TIMEOUT,
        "lease": faults.LEASE,
        "blocked_cap": BLOCKED_CAP,
        "killed_cap": KILLED_CAP,
    }


def available(brokers: Brokers, names: Sequence[str]) -> tuple[list[Row], dict[str, str]]:
    """The rows that can be measured here; and why others cannot."""
    rows, missing = [], {}
    for row in (ROWS[name] for name in names):
        if row.broker in brokers.missing:
            missing[row.name] = brokers.missing[row.broker]
        elif sys.version_info < (3, row.python):
            missing[row.name] = f"needs Python 3.{row.python}"
        else:
            rows.append(row)
    for name, why in missing.items():
        print(f"left out: {name}: {why}", file=sys.stderr)
    return rows, missing


def short(brokers: Brokers, rows: Sequence[Row]) -> None:
    """Each row once, several at a time, and the faults of some."""
    with ThreadPoolExecutor(3) as pool:
        future = pool.submit(outages, [ROWS["natslease"]], 4.0, 4.0 + faults.LEASE)
        measured = pool.map(lambda row: measure(brokers, row, SHORT), rows)
        for row, found in zip(rows, measured, strict=True):
            print(f"{row.name}: {', '.join(found)}")
        faulty = future.result()
    ours = faulty["blocked"]["natslease"].values()
    late = [case for case in ours if case[str(faults.TIMEOUT)]["error"] is None]
    if late or faulty["fork"]["natslease"] != "yes" or not faulty["killed"]["natslease"]["lease"]:
        raise RuntimeError(f"natslease in a fault: {faulty}")
    print(f"natslease in faults: {json.dumps(faulty)}")


def progress(text: str) -> None:
    """Says what is being done, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="as little as possible, for CI")
    parser.add_argument("--row", choices=ROWS, action="append", help="only this; may be repeated")
    parser.add_argument("--page", action="store_true", help="only write what is recorded")
    options = parser.parse_args()
    if options.page:
        made = json.loads(page.RECORDED.read_text())
        page.write(made)
        plot(made, page.PICTURE)
        print(*page.parts(made).values(), sep="\n\n")
        print(f"\nWritten: {page.PAGE}, {page.PICTURE}")
        return 0
    began = time.monotonic()
    logging.getLogger("natslease").addHandler(logging.NullHandler())
    with Brokers() as brokers:
        rows, missing = available(brokers, options.row or list(ROWS))
        if options.short:
            short(brokers, rows)
            print(f"All of it took {time.monotonic() - began:.0f} s.")
            return 0
        if missing and not options.row:
            return 1
        made = recorded(rows, missing)
        values = speed(brokers, rows, FULL, ROUNDS)
    made["speed"] = {
        name: {what: page.summary(found) for what, found in by_name.items()}
        for name, by_name in values.items()
    }
    synchronous = [row for row in rows if row.is_synchronous]
    made |= outages(synchronous, BLOCKED_CAP, KILLED_CAP)
    progress("")
    text = json.dumps(made, indent=1)
    if options.row:
        print(text)
    else:
        page.RECORDED.write_text(text + "\n")
        print(f"Written: {page.RECORDED}")
    print(f"All of it took {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
