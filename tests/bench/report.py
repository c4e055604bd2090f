"""What the benchmark prints and writes."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REFERENCE = "nats.go"
OURS = "natslease"


@dataclass
class Series:
    """The figures of one operation by one side."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def quantile(self, share: float) -> float:
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class Operation:
    """A row of the table.

    Attributes:
        unit: "us", of which fewer are better, or "/s", of which more are.
        target: what natslease must reach, as a multiple of the side ``beside``.
    """

    name: str
    unit: str = "us"
    target: float | None = None
    ours: str = OURS
    beside: str = REFERENCE

    def ratio(self, results: Results) -> float | None:
        """Ours as a multiple of the other's."""
        sides = results.series[self.name]
        if self.ours not in sides or self.beside not in sides:
            return None
        return sides[self.ours].median / sides[self.beside].median

    def reaches(self, ratio: float) -> bool:
        assert self.target is not None
        return ratio >= self.target if self.unit == "/s" else ratio <= self.target


@dataclass
class Figure:
    """A single figure with its limit."""

    name: str
    value: float
    unit: str
    limit: float
    control: str = ""


@dataclass
class Results:
    """All that was measured; series by operation and side."""

    machine: dict[str, str]
    operations: list[Operation]
    series: dict[str, dict[str, Series]]
    figures: list[Figure] = field(default_factory=list)

    def sides(self) -> list[str]:
        """Their names, in the order of their first row."""
        return list(dict.fromkeys(side for row in self.series.values() for side in row))


def show(results: Results) -> None:
    """Prints everything, as Markdown."""
    print("\nMeasured on: " + ", ".join(f"{k} {v}" for k, v in results.machine.items()) + ".\n")
    print("Medians, in microseconds or per second; in brackets the 99th percentile.\n")
    sides = results.sides()
    operations = results.operations
    _table(
        ["", *(operation.name for operation in operations)],
        [
            [side, *(_cell(results.series[op.name].get(side), op.unit) for op in operations)]
            for side in sides
        ],
    )
    print()
    rows = []
    for operation in operations:
        ratio = operation.ratio(results)
        if ratio is None or operation.target is None:
            continue
        sign = ">=" if operation.unit == "/s" else "<="
        rows.append(
            [
                operation.name,
                f"{operation.ours} / {operation.beside}",
                f"{ratio:.2f}",
                f"{sign} {operation.target:.2f}",
                "yes" if operation.reaches(ratio) else "no",
            ]
        )
    rows += [
        [
            f.name,
            f"{OURS} ({f.control})" if f.control else OURS,
            f"{f.value:.2f} {f.unit}".rstrip(),
            f"<= {f.limit:g}",
            "yes" if f.value <= f.limit else "no",
        ]
        for f in results.figures
    ]
    _table(["", "what", "measured", "aim", "reached"], rows)


def _cell(series: Series | None, unit: str) -> str:
    if series is None:
        return ""
    if unit == "/s":
        return f"{series.median / 1000:,.1f}k/s"
    return f"{series.median:,.0f} ({series.quantile(0.99):,.0f})"


def _table(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |")


def write(results: Results, folder: Path, *, short: bool) -> None:
    """Writes results.json and results.png."""
    text = json.dumps(_plain(results, short), indent=1)
    (folder / "results.json").write_text(text + "\n")
    plot(results, folder / "results.png")
    print(f"\nWritten: {folder / 'results.json'}, {folder / 'results.png'}")


def _plain(results: Results, short: bool) -> dict[str, Any]:
    return {
        "short": short,
        "machine": results.machine,
        "operations": [
            {
                "name": operation.name,
                "unit": operation.unit,
                "target": operation.target,
                "ratio": operation.ratio(results),
                "of": [operation.ours, operation.beside],
                "sides": {
                    side: {
                        "median": series.median,
                        "p10": series.quantile(0.10),
                        "p90": series.quantile(0.90),
                        "p99": series.quantile(0.99),
                        "count": len(series.values),
                    }
                    for side, series in results.series[operation.name].items()
                },
            }
            for operation in results.operations
        ],
        "figures": [vars(figure) for figure in results.figures],
    }


def plot(results: Results, path: Path) -> None:
    """Draws one bar for each side, and a line up to its 99th percentile, for each operation."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sides = results.sides()
    colors = dict(zip(sides, plt.get_cmap("tab10").colors, strict=False))
    columns = 3
    rows = -(-len(results.operations) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(15, 3.2 * rows), layout="constrained")
    for axis in axes.flat[len(results.operations) :]:
        axis.axis("off")
    for axis, operation in zip(axes.flat, results.operations, strict=False):
        found = results.series[operation.name]
        for place, (side, series) in enumerate(reversed(found.items())):
            axis.barh(place, series.median, color=colors[side])
            if operation.unit == "us":
                axis.plot([series.median, series.quantile(0.99)], [place, place], color="black")
            axis.annotate(f" {series.median:,.0f}", (series.median, place + 0.22), fontsize=7)
        axis.set_yticks(range(len(found)), list(reversed(found)), fontsize=8)
        axis.set_xscale("log")
        unit = "microseconds, less is better" if operation.unit == "us" else "per second"
        axis.set_title(f"{operation.name}: {unit}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    machine = results.machine
    figure.suptitle(
        f"Medians, lines to the 99th percentile. {machine['cpu']}, nats-server "
        f"{machine['nats-server']}, Python {machine['python']}",
        fontsize=11,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
