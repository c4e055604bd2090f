"""Whether an outage can be noticed elsewhere: the unrelated endpoint beside a control.

During one outage the pollers ask for tasks and, in turns with that, a stub that gives the same
answers and has nothing behind it. The unrelated endpoint's times are compared between the two.
``python -m replay.control`` runs it for both outages, 16 and 32 pollers, and timeouts of 5 and
30 s.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from typing import Any

from .figures import DOCS, insert, quantile
from .half import FULL, STALE_JOB, Lengths, Story

TURN = 3.0  # seconds that one of the two is asked
TURNS = 5  # of each
LIMIT = 1.1


class Control(Story):
    """An outage, and the same load on a stub in turns with it."""

    def __init__(
        self, outage: str, pollers: int, timeout: float, lengths: Lengths, say: Any, postgres: bool
    ) -> None:
        super().__init__("after", lengths, say, postgres)
        self.outage, self.pollers, self.timeout = outage, pollers, timeout

    def _tell(self) -> None:
        self._start("monitor", role="monitor", rate=30)
        for slot in range(self.pollers // 16):
            self._worker(f"old {slot}", slot, timeout=self.timeout)
        self._phase("healthy", 3)
        self._publish(STALE_JOB, 200)
        (self.server.freeze if self.outage == "frozen" else self.server.kill)()
        self._phase("begins", 4)  # the first calls run into their deadline, the breaker opens
        for turn in range(2 * TURNS):
            self.plan["stub"] = bool(turn % 2)
            self._write_plan()
            self._phase("stub" if turn % 2 else self.outage, TURN)
        if self.outage == "frozen":
            self.server.thaw()
        else:
            self.server.start()


def compare(control: Control) -> dict[str, Any]:
    """The unrelated endpoint's times, beside those with the stub."""
    half = control.run()
    took: dict[str, list[float]] = {"real": [], "stub": []}
    failed = 0
    for name, begin, finish in half.phases:
        if name not in (control.outage, "stub"):
            continue
        for look in half.monitor:
            # What was asked before the turn has its answers a moment into it.
            if begin + 0.5 <= look["at"] < finish:
                took["stub" if name == "stub" else "real"].append(look["took"] * 1000)
                failed += look["status"] != "200"
    real, stub = (round(quantile(took[side], 0.99), 1) for side in ("real", "stub"))
    return {
        "outage": control.outage,
        "pollers": control.pollers,
        "timeout_s": control.timeout,
        "requests": len(took["real"]),
        "failed": failed,
        "p50_ms": round(quantile(took["real"], 0.5), 1),
        "p50_stub_ms": round(quantile(took["stub"], 0.5), 1),
        "p99_ms": real,
        "p99_stub_ms": stub,
        "ratio": round(real / stub, 2) if stub else None,
    }


def show(rows: list[dict[str, Any]]) -> str:
    """A table, in Markdown."""
    head = ["outage", "pollers", "timeout_s", "requests", "failed", "p50_ms", "p50_stub_ms"]
    head += ["p99_ms", "p99_stub_ms", "ratio"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(row[name]) for name in head) + " |" for row in rows]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sqlite", action="store_true")
    parser.add_argument("--only", type=int, help="so many of the eight")
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    options = parser.parse_args()
    lengths = dataclasses.replace(FULL, healthy=3)
    cases = itertools.product(("frozen", "killed"), (16, 32), (5.0, 30.0))
    rows = []
    for case in itertools.islice(cases, options.only):
        print("{}, {} pollers, {} s".format(*case), file=sys.stderr, flush=True)
        control = Control(*case, lengths, lambda text: None, not options.sqlite)
        rows.append(compare(control))
        print(rows[-1], file=sys.stderr, flush=True)
    print(show(rows))
    if options.write:
        insert(DOCS / "incident.md", "control", show(rows))
    return 1 if any(row["failed"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
