"""The picture of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from report import bars, spans

from .page import SPEEDS


def plot(recorded: dict[str, Any], path: Path) -> None:
    """Draws each speed, and how long a call can take when the broker is out of order."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 2, figsize=(13, 13.5), layout="constrained")
    for axis, (what, heading, rate) in zip(axes.flat, SPEEDS, strict=False):
        row = {name: found[what] for name, found in recorded["speed"].items() if what in found}
        if rate:
            axis.set_title(f"{heading}: more is better", fontsize=11)
            bars(axis, {name: figures["median"] for name, figures in row.items()})
        else:
            axis.set_title(f"{heading}: less is better", fontsize=11)
            spans(axis, {name: (f["median"], f["p10"], f["p99"]) for name, f in row.items()})
    worst = {
        name: max((case["0"] for case in cases.values()), key=lambda call: float(call["took"]))
        for name, cases in recorded["blocked"].items()
    }
    axis = axes.flat[-1]
    axis.set_title("a call in the worst of three outages, by default: seconds", fontsize=11)
    bars(axis, {name: call["took"] for name, call in worst.items()}, "{:.1f}")
    axis.set_xlim(0, 1.4 * recorded["blocked_cap"])
    for place, call in enumerate(reversed(worst.values())):
        if call["error"] is None:
            axis.text(call["took"] * 1.12, place, "and more", va="center", fontsize=8)
    where = recorded["machine"]
    figure.suptitle(
        f"Medians, and lines from the 10th to the 99th percentile. {where['cpu']}, {where['date']}"
    )
    figure.savefig(path, dpi=100)
    plt.close(figure)
