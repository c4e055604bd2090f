"""What is made of what was seen: figures, a table of both halves, and a picture."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from .half import Half

DOCS = Path(__file__).resolve().parents[3] / "docs" / "explanation"
OUTAGES = ("frozen", "slow", "killed")


def _of(rows: list[dict[str, Any]], begin: float, finish: float) -> list[dict[str, Any]]:
    return [row for row in rows if begin <= row["at"] < finish]


def quantile(values: list[float], share: float) -> float:
    """Of values in any order; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def requests_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many requests ended how, and how long they took, in milliseconds."""
    took = [row["took"] * 1000 for row in rows]
    return {
        "requests": len(rows),
        "failed": sum(1 for row in rows if row["status"] != "200"),
        "statuses": dict(sorted(Counter(row["status"] for row in rows).items())),
        "p50_ms": round(quantile(took, 0.5), 1),
        "p99_ms": round(quantile(took, 0.99), 1),
        "max_ms": round(max(took, default=0.0), 1),
    }


def figures(half: Half) -> dict[str, Any]:
    """The figures of a half, by phase."""
    phases: dict[str, Any] = {}
    for i, (name, begin, finish) in enumerate(half.phases):
        samples = _of(half.samples, begin, finish)
        phases[name] = {
            "seconds": round(finish - begin, 1),
            "unrelated": requests_of(_of(half.monitor, begin, finish)),
            "polls": requests_of(_of(half.polls, begin, finish)),
            "threads": max((s["threads"] for s in samples), default=0),
            "database": max((s["database"] for s in samples), default=0),
            "in_transaction": max((s.get("in_transaction", 0) for s in samples), default=0),
            "stall_ms": round(
                1000 * max((s["stall"] for s in _of(half.stalls, begin, finish)), default=0.0), 1
            ),
        }
        if name in OUTAGES:
            back = half.phases[i + 1][2] - finish
            phases[name]["recovery_s"] = _recovery(half, finish, back)
    return {
        "half": half.name,
        "database": half.database,
        "phases": phases,
        "nats_connections": half.nats_connections,
        "stranded": half.stranded,
        "new_worker_got": half.new_worker_got,
        "new_tasks": half.new_tasks,
    }


def _recovery(half: Half, finish: float, back: float) -> float | None:
    """Seconds until nine of ten requests to the queue succeed; None: not while it was watched.

    Some are refused at any time: more pollers ask than may wait.
    """
    ended = [
        (poll["at"] + poll["took"] - finish, poll["status"] not in ("200", "409"))
        for poll in half.polls
        if poll["at"] + poll["took"] > finish and poll["at"] < finish + back
    ]
    last = 0.0
    for at, failed in ended:
        around = [also for when, also in ended if abs(when - at) <= 1]
        if failed and sum(around) > len(around) * 0.1:
            last = max(last, at)
    return None if last >= back - 1 else round(last, 1)


ROWS = (
    ("unrelated requests", lambda p: f"{p['unrelated']['requests']:,}"),
    ("  of them failed", lambda p: f"{p['unrelated']['failed']:,}"),
    (
        "  p50, p99 (ms)",
        lambda p: f"{p['unrelated']['p50_ms']:,.0f}, {p['unrelated']['p99_ms']:,.0f}",
    ),
    ("polls answered", lambda p: _statuses(p["polls"]["statuses"])),
    ("  longest (s)", lambda p: f"{p['polls']['max_ms'] / 1000:.1f}"),
    ("threads held, most", lambda p: f"{p['threads']:,}"),
    ("database connections, most", lambda p: f"{p['database']:,}"),
    ("  idle in transaction", lambda p: f"{p['in_transaction']:,}"),
    ("event loop stalled (ms)", lambda p: f"{p['stall_ms']:,.0f}"),
    (
        "recovered after (s)",
        lambda p: "longer than watched" if p["recovery_s"] is None else f"{p['recovery_s']:.1f}",
    ),
)


def _statuses(statuses: dict[str, int]) -> str:
    return ", ".join(f"{n} x {status}" for status, n in statuses.items()) or "none"


def table(before: dict[str, Any] | None, after: dict[str, Any]) -> str:
    """Both halves beside each other, in Markdown."""
    halves = [h for h in (before, after) if h is not None]
    rows = [["", *(h["half"] for h in halves)]]
    for outage in OUTAGES:
        seconds = ", ".join(f"{h['phases'][outage]['seconds']:.0f} s" for h in halves)
        rows.append([f"**{outage}** ({seconds})", *("" for _ in halves)])
        for label, tell in ROWS:
            rows.append([label.strip(), *(tell(h["phases"][outage]) for h in halves)])
    rows.append(["**all of it**", *("" for _ in halves)])
    rows.append(["NATS connections opened", *(f"{h['nats_connections']:,}" for h in halves)])
    stranded = [", ".join(f"{n} ({k})" for k, n in h["stranded"].items()) for h in halves]
    rows.append(["tasks stranded", *stranded])
    got = [f"{h['new_worker_got']} of {h['new_tasks']}" for h in halves]
    rows.append(["the new worker got", *got])
    rows.append(["database", *(h["database"] for h in halves)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * w for w in widths) + " |")
    return "\n".join(lines)


def write(path: Path, halves: dict[str, dict[str, Any]], machine: dict[str, str]) -> None:
    """Writes the figures."""
    path.write_text(json.dumps({"machine": machine, **halves}, indent=1) + "\n")


def insert(page: Path, name: str, text: str) -> None:
    """Puts a text between the page's marks of that name."""
    before, mark, rest = page.read_text().partition(f"<!-- {name}: ")
    note, _, rest = rest.partition("\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not mark or not end:
        raise ValueError(f"{page} has no marks of {name}")
    page.write_text(f"{before}{mark}{note}\n{text.strip()}\n{end}{after}")


def plot(halves: list[Half], path: Path) -> None:
    """Draws what was seen over time, a column for each half."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    colors = {"frozen": "#9cc3e6", "slow": "#f3d08a", "killed": "#e8a0a0", "new job": "#c4dfb4"}
    rows = 5
    figure, axes = plt.subplots(
        rows,
        len(halves),
        figsize=(7.5 * len(halves), 2.3 * rows),
        sharex="col",
        sharey="row",
        layout="constrained",
        squeeze=False,
    )
    for column, half in enumerate(halves):
        own = axes[:, column]
        own[0].set_title(f"{half.name} ({half.database})")
        for axis in own:
            for name, begin, finish in half.phases:
                if name in colors:
                    axis.axvspan(begin, finish, color=colors[name], alpha=0.5, linewidth=0)
            axis.spines[["top", "right"]].set_visible(False)
        for ok, color in ((True, "#3b6ea5"), (False, "#c0392b")):
            some = [m for m in half.monitor if (m["status"] == "200") == ok]
            own[0].plot(
                [m["at"] for m in some],
                [max(m["took"], 1e-3) for m in some],
                ".",
                color=color,
                markersize=3,
            )
        own[0].set_yscale("log")
        for statuses, color in (
            (("200",), "#3b6ea5"),
            (("503", "409"), "#e0a030"),
            (None, "#c0392b"),
        ):
            some = [
                p
                for p in half.polls
                if (
                    p["status"] in statuses
                    if statuses
                    else p["status"] not in ("200", "503", "409")
                )
            ]
            own[1].plot(
                [p["at"] for p in some],
                [max(p["took"], 1e-3) for p in some],
                ".",
                color=color,
                markersize=3,
            )
        own[1].set_yscale("log")
        at = [s["at"] for s in half.samples]
        own[2].plot(at, [s["threads"] for s in half.samples], color="#444444")
        own[3].plot(at, [s["database"] for s in half.samples], color="#444444", label="all")
        own[3].plot(
            at,
            [s.get("in_transaction", 0) for s in half.samples],
            color="#c0392b",
            label="idle in transaction",
        )
        own[4].plot(
            [s["at"] for s in half.stalls],
            [1000 * s["stall"] for s in half.stalls],
            ".",
            color="#444444",
            markersize=3,
        )
        own[4].set_xlabel("seconds; blue: frozen, yellow: slow, red: killed, green: a new job")
    for axis, label in zip(
        axes[:, 0],
        (
            "/ml/pipelines/, s\n(red: failed)",
            "/tasks/, s\n(yellow: 503, 409;\nred: timed out, 500)",
            "threads",
            "database\nconnections",
            "event loop\nlate, ms",
        ),
        strict=True,
    ):
        axis.set_ylabel(label)
    axes[3, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)
