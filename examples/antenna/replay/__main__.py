"""Runs the incident again: as it was before, and as it is after.

    python -m replay                     both halves; figures and a picture into docs/explanation
    python -m replay --half after        one of them; only prints
    python -m replay --half after --short

Needs PostgreSQL (initdb and postgres on PATH); without, SQLite is used. The half "before" needs
nats-py, and wants to be served by what the application had (--python-before): since Django 5.0 a
request under ASGI ends when its client leaves, and much of the harm with it. The exit status is 1
when "after" harms anybody.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from natslease.testing import find_server

from . import healthy
from .figures import DOCS, OUTAGES, figures, insert, plot, table, write
from .half import FULL, SHORT, SMOKE, Half, Story

RECORDED = DOCS / "incident.json"


class Progress:
    """A line that says what is being done; where nobody looks, a line now and then."""

    def __init__(self, half: str) -> None:
        self._half = half
        self._began = time.monotonic()
        self._next = 0.0
        self._tty = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        line = f"[{now - self._began:4.0f} s] {self._half}: {text}"
        if self._tty:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[2K{line[:width]}", end="", file=sys.stderr, flush=True)
        elif now >= self._next:
            self._next = now + 2.0
            print(line, file=sys.stderr, flush=True)

    def finish(self) -> None:
        if self._tty:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def machine() -> dict[str, str]:
    """Where it was measured."""
    version = subprocess.run(
        [find_server(), "--version"], capture_output=True, text=True, check=True, timeout=20
    )
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": f"{os.cpu_count()} x {cpu}",
        "python": platform.python_version(),
        "nats-server": version.stdout.split()[-1],
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _told(where: dict[str, str]) -> str:
    return (
        f"One run, {where['date']}: {where['cpu']} (a virtual machine with other work on it, load "
        f"{where['load before']}), Python {where['python']}, nats-server {where['nats-server']}."
    )


def run(name: str, lengths: Any, *, postgres: bool, python: str) -> Half:
    """Runs a half, and says what it does meanwhile."""
    progress = Progress(name)
    try:
        return Story(name, lengths, progress, postgres, python).run()
    finally:
        progress.finish()


def harm(after: dict[str, Any]) -> list[str]:
    """What must not happen, and has."""
    found = []
    for outage in OUTAGES:
        phase = after["phases"][outage]
        if phase["unrelated"]["failed"]:
            found.append(f"{phase['unrelated']['failed']} unrelated requests failed ({outage})")
        wrong = set(phase["polls"]["statuses"]) - {"200", "503", "409"}
        if wrong:
            found.append(f"a poll ended with {', '.join(sorted(wrong))} ({outage})")
    for outage, n in after["stranded"].items():
        if n:
            found.append(f"{n} tasks were stranded ({outage})")
    if after["new_worker_got"] < after["new_tasks"]:
        found.append(f"the new worker got {after['new_worker_got']} of {after['new_tasks']} tasks")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=("before", "after", "both"), default="both")
    parser.add_argument("--short", action="store_true", help="shorter outages")
    parser.add_argument("--smoke", action="store_true", help="as short as it can be, for CI")
    parser.add_argument("--sqlite", action="store_true", help="even where PostgreSQL is there")
    parser.add_argument(
        "--python-before",
        default=sys.executable,
        help="what serves the half before: with the packages of that day",
    )
    parser.add_argument("--out", type=Path, help="folder for figures and picture")
    options = parser.parse_args()
    lengths = SMOKE if options.smoke else SHORT if options.short else FULL
    postgres = not options.sqlite and all(map(shutil.which, ("initdb", "postgres")))
    if not postgres:
        print("PostgreSQL's initdb and postgres are not on PATH: SQLite is used.", file=sys.stderr)
    where = machine()
    names = ("before", "after") if options.half == "both" else (options.half,)
    pythons = {"before": options.python_before, "after": sys.executable}
    halves = {name: run(name, lengths, postgres=postgres, python=pythons[name]) for name in names}
    made = {name: figures(half) for name, half in halves.items()}
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if "after" in made:
        before, note = made.get("before"), ""
        if before is None and "before" in recorded:
            before = recorded["before"]
            note = (
                f'"before" was recorded on {recorded["machine"]["date"]}: make replay runs it here.'
            )
        print(table(before, made["after"]))
        print("\n" + note if note else "")
    else:
        print(table(None, made["before"]))
    folder = options.out or (DOCS if options.half == "both" and not options.smoke else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / RECORDED.name, made, where)
        plot(list(halves.values()), folder / "incident.png")
        if folder == DOCS:
            text = _told(where) + "\n\n" + table(made["before"], made["after"])
            insert(DOCS / "incident.md", "incident", text)
            insert(DOCS / "incident.md", "healthy", healthy.show(healthy.run()))
        print(f"Written: {folder / RECORDED.name}, {folder / 'incident.png'}")
    problems = harm(made["after"]) if "after" in made else []
    if problems:
        print("FAILED: " + "; ".join(problems))
    elif "after" in made:
        print("After: nobody was harmed.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
