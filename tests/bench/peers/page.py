"""The tables of docs/explanation/peers.md, and what is recorded of a run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report import Series

from .features import FEATURES, PEERS, Cell

DOCS = Path(__file__).resolve().parents[3] / "docs" / "explanation"
PAGE, RECORDED, PICTURE = (DOCS / f"peers.{kind}" for kind in ("md", "json", "png"))
OURS, OURS_IN_LOOP = "natslease", "natslease, in a loop"
# Name, heading, whether it is a rate (tasks a second), else microseconds.
SPEEDS = (
    ("enqueue", "enqueue one, µs", False),
    ("enqueue many", "enqueue many, tasks/s", True),
    ("work off", "take, do, ack one by one, tasks/s", True),
    ("work off in batches", "in batches of 64, tasks/s", True),
    ("to taken", "enqueued to taken, µs", False),
)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Of the values of a row and an operation."""
    series = Series(list(values))
    return {
        "median": statistics.median(values),
        "p10": series.quantile(0.10),
        "p99": series.quantile(0.99),
        "count": len(values),
    }


def speed(recorded: dict[str, Any]) -> str:
    """How fast each is, and as a multiple of natslease's."""
    rows = [["", *(heading for _, heading, _ in SPEEDS)]]
    for name, measured in recorded["speed"].items():
        reference = recorded["speed"][OURS_IN_LOOP if name.endswith("in a loop") else OURS]
        cells = [
            _speed(measured.get(what), reference[what]["median"], rate=rate)
            for what, _, rate in SPEEDS
        ]
        rows.append([f"**{name}**" if name.startswith(OURS) else name, *cells])
    return table(rows)


def _speed(figures: dict[str, float] | None, reference: float, *, rate: bool) -> str:
    if figures is None:
        return ""
    ratio = f"{figures['median'] / reference:.2g}x"
    if rate:
        return f"{figures['median']:,.0f}, {ratio}"
    return f"{figures['median']:,.0f} ({figures['p99']:,.0f}), {ratio}"


def faults(recorded: dict[str, Any]) -> str:
    """What happens to each in a fault; in brackets with its own options."""
    cases, limit = recorded["cases"], str(recorded["timeout"])
    rows = [["", *cases, "worker killed", "forked child"]]
    for name, calls in recorded["blocked"].items():
        cells = [f"{_took(calls[case]['0'])} ({_took(calls[case][limit])})" for case in cases]
        killed, cap = recorded["killed"][name], recorded["killed_cap"]
        again = f"{_again(killed['default'], cap)} ({_again(killed['lease'], cap)})"
        rows.append(
            [f"**{name}**" if name == OURS else name, *cells, again, recorded["fork"][name]]
        )
    return table(rows)


def _took(call: dict[str, Any]) -> str:
    if call["error"] is None:
        return f"> {call['took']:.0f} s"
    took = f"{call['took']:.1f} s" if call["took"] >= 0.05 else "< 0.05 s"
    return took if call["error"] else f"{took}, no error"


def _again(seconds: float | None, cap: float) -> str:
    return f"not in {cap:.0f} s" if seconds is None else f"{seconds:.1f} s"


def features() -> str:
    """What each has, every cell with a link to where that is written."""
    rows = [["", *PEERS]]
    rows += [[name, *(_linked(cells[peer]) for peer in PEERS)] for name, cells in FEATURES.items()]
    return table(rows)


def _linked(cell: Cell) -> str:
    return f"[{cell.text}]({cell.source})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; the first row is the head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join("---" for _ in rows[0]) + " |")
    return "\n".join(lines)


def told(recorded: dict[str, Any]) -> str:
    """Where and when it was measured."""
    where = recorded["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    missing = "".join(f" Left out: {name} ({why})." for name, why in recorded["missing"].items())
    return (
        f"One run, {where['date']}: {where['cpu']} (a virtual machine), load before "
        f"{where['load']}, {where['kernel']}. {versions}.{missing}"
    )


def parts(recorded: dict[str, Any]) -> dict[str, str]:
    """What stands between the page's marks, by their names."""
    return {
        "speed": f"{told(recorded)}\n\n{speed(recorded)}",
        "faults": faults(recorded),
        "features": features(),
    }


def write(recorded: dict[str, Any]) -> None:
    """Writes the tables into the page."""
    from replay.figures import insert

    for name, text in parts(recorded).items():
        insert(PAGE, name, text)
