"""The results as text."""

from __future__ import annotations

import os
import platform
from collections import Counter
from pathlib import Path

from faults import FAULTS
from harness import FACES, Run
from judge import named_share, percentile
from operations import LEASE_OPERATIONS, OPERATIONS

_PAGE = Path(__file__).with_name("page.md")

_LETTERS = {
    "ConnectFailed": "F",
    "ConnectionLost": "L",
    "CircuitOpen": "O",
    "DeadlineExceeded": "D",
    "QueueUnavailable": "U",
    "StorageFull": "S",
    "LeaseGone": "G",
    "LeaseExpired": "E",
    "QueueNotFound": "N",
    "ServerError": "X",
}
_OUTCOMES = {"not_sent": "·", "unknown": "?", "rejected": "✗"}


def line(run: Run) -> str:
    """One run on one line."""
    counts = Counter(call.verdict for call in run.calls)
    verdicts = ", ".join(f"{verdict} {n:,}" for verdict, n in counts.most_common())
    goroutines, descriptors, memory = _growth(run)
    return (
        f"{run.fault}, {run.face}: {len(run.calls):,} calls in {run.seconds:.0f} s, "
        f"{_late(run, 0.999)} late (p99.9), {_late(run, 1.0)} (max); {verdicts}; "
        f"named {named_share(run):.0%}; "
        f"goroutines {goroutines}, descriptors {descriptors}, memory {memory}"
    )


def page(runs: list[Run], problems: list[str]) -> str:
    """All runs, and what was wrong with them, as a page of the documentation."""
    found = {(run.fault, run.face): run for run in runs}
    ordered = [found[fault, face] for fault in FAULTS for face in FACES if (fault, face) in found]
    faults = [fault for fault in FAULTS if any(run.fault == fault for run in runs)]
    return _PAGE.read_text().format(
        servers=", ".join(sorted({run.server for run in runs})),
        python=platform.python_version(),
        machine=_machine(),
        load=", ".join(f"{load:.0f}" for load in os.getloadavg()),
        problems="\n".join(f"- {text.splitlines()[0]}" for text in problems) or "Nothing.",
        rows="\n".join(map(_row, ordered)),
        letters=", ".join(f"{letter} `{name}`" for name, letter in _LETTERS.items()),
        faults=" | ".join(faults),
        dashes="|".join("---" for _ in faults),
        endings="\n".join(
            _cells(f"`{operation}`", *(_endings(runs, fault, operation) for fault in faults))
            for operation in (*OPERATIONS, *LEASE_OPERATIONS)
        ),
    )


def _row(run: Run) -> str:
    goroutines, descriptors, memory = _growth(run)
    return _cells(
        run.fault,
        FAULTS[run.fault].how,
        run.face,
        f"{len(run.calls):,}",
        _late(run, 0.999),
        _late(run, 1.0),
        goroutines,
        descriptors,
        memory,
        f"{named_share(run):.0%}",
    )


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _late(run: Run, share: float) -> str:
    return f"{max(percentile(run, share), 0) * 1e3:.1f} ms"


def _growth(run: Run) -> tuple[str, str, str]:
    assert run.before is not None
    assert run.after is not None
    memory = (run.after.memory - run.before.memory) / 2**20
    return (
        f"{run.before.goroutines} → {run.after.goroutines}",
        f"{run.before.descriptors} → {run.after.descriptors}",
        f"{memory:+.1f} MiB",
    )


def _endings(runs: list[Run], fault: str, operation: str) -> str:
    verdicts = {
        call.verdict
        for run in runs
        if run.fault == fault
        for call in run.calls
        if call.operation == operation
    }
    return " ".join(sorted(map(_short, verdicts))) or "-"


def _short(verdict: str) -> str:
    name, _, outcome = verdict.partition("/")
    return name if not outcome else _LETTERS.get(name, name) + _OUTCOMES[outcome]


def _machine() -> str:
    names = [
        text.partition(":")[2].strip()
        for text in Path("/proc/cpuinfo").read_text().splitlines()
        if text.startswith("model name")
    ]
    model = names[0] if names else platform.machine()
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
