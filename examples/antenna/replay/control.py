"""Whether an outage can be noticed elsewhere: the unrelated endpoint beside two controls.

In each round NATS goes away, and half of the pollers' clients have a timeout of 5 s, half of 30 s.
They ask for tasks, from the outage's first moment, at which requests that wait for tasks end
together; then, each for as long, a stub that gives the same answers and has nothing behind it, and
the same view up to where it would ask NATS, whose requests wait before, too, and end together. The
unrelated endpoint's times are compared between them.
``python -m replay.control`` does that for both outages with 16 and with 32 pollers.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from typing import Any

from .figures import DOCS, insert, quantile
from .half import FULL, TASKS, TIMEOUTS, Story

ROUNDS = 4
TURN = 8.0  # seconds that one of them is asked
BACK = 4.0  # and that requests have before to come and wait
RATE = 15  # looks at the unrelated endpoint, a second
SIDES = {"tasks": TASKS, "stub": "stub/", "without NATS": "without/{job}/"}
REAL, *CONTROLS = SIDES


class Control(Story):
    """Outages, and the same load on the controls in turns with it."""

    def __init__(self, outage: str, pollers: int, rounds: int, say: Any, postgres: bool) -> None:
        super().__init__("after", FULL, say, postgres)
        self.outage, self.pollers, self.rounds = outage, pollers, rounds

    def _tell(self) -> None:
        self._start("monitor", role="monitor", rate=RATE)
        for slot, timeout in enumerate(TIMEOUTS):
            pollers = self.pollers // len(TIMEOUTS)
            self._worker(f"old {slot}", slot, timeout=timeout, pollers=pollers)
        frozen = self.outage == "frozen"
        begin, finish = (
            (self.server.freeze, self.server.thaw)
            if frozen
            else (self.server.kill, self.server.start)
        )
        for _ in range(self.rounds):
            for side, path in SIDES.items():
                until = time.time() + BACK
                self.plan["path"] = path if side == REAL else f"{path}?until={until}"
                self._write_plan()
                self._phase("wait", BACK)
                if side == REAL:
                    begin()
                self._phase(side, TURN)
            finish()


def compare(control: Control) -> dict[str, Any]:
    """What was seen of the unrelated endpoint, by what was polled meanwhile."""
    half = control.run()
    row: dict[str, Any] = {"outage": control.outage, "pollers": control.pollers, "failed": 0}
    for side in SIDES:
        looks = list(_during(half.phases, half.monitor, side))
        row["failed"] += sum(1 for look in looks if look["status"] != "200")
        row[side] = [look["took"] * 1000 for look in looks]
        row[f"{side} polls"] = len(list(_during(half.phases, half.polls, side)))
    return row


def _during(
    phases: list[tuple[str, float, float]], rows: list[dict[str, Any]], side: str
) -> Iterator[dict[str, Any]]:
    for name, begin, finish in phases:
        if name == side:
            yield from (row for row in rows if begin <= row["at"] < finish)


def show(rows: list[dict[str, Any]]) -> str:
    """A table, in Markdown; its last row is of all the others together."""
    every: dict[str, Any] = {"outage": "all", "pollers": ""}
    every["failed"] = sum(row["failed"] for row in rows)
    for side in SIDES:
        every[f"{side} polls"] = sum(row[f"{side} polls"] for row in rows)
        every[side] = [took for row in rows for took in row[side]]
    head = ["NATS", "pollers", "polls", "looks", "failed", "p50 (ms)", "p99 (ms)"]
    head += [f"p99 / p99, {side}" for side in CONTROLS]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in [*rows, every]:
        p99 = {side: quantile(row[side], 0.99) for side in SIDES}
        cells = [row["outage"], row["pollers"]]
        cells += [" / ".join(f"{row[f'{side} polls']:,}" for side in SIDES)]
        cells += [" / ".join(f"{len(row[side]):,}" for side in SIDES), row["failed"]]
        cells += [" / ".join(f"{quantile(row[side], 0.5):.1f}" for side in SIDES)]
        cells += [" / ".join(f"{value:.0f}" for value in p99.values())]
        cells += [f"{p99[REAL] / p99[side]:.2f}" if p99[side] else "-" for side in CONTROLS]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sqlite", action="store_true")
    parser.add_argument("--only", choices=("frozen", "killed"), help="one of the outages")
    parser.add_argument("--pollers", type=int, choices=(16, 32), help="one of the two numbers")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    options = parser.parse_args()
    outages = [options.only] if options.only else ["frozen", "killed"]
    pollers = [options.pollers] if options.pollers else [16, 32]
    rows = []
    for case in itertools.product(outages, pollers):
        print("{}, {} pollers".format(*case), file=sys.stderr, flush=True)
        control = Control(*case, options.rounds, lambda text: None, not options.sqlite)
        rows.append(compare(control))
    print(show(rows))
    if options.write:
        insert(DOCS / "incident.md", "control", show(rows))
    return 1 if any(row["failed"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
