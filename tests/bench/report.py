"""What the benchmark prints and writes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REFERENCE = "nats.go"
OURS = "natslease"
PUBLISH = "publish"
CROWD = "16 threads reserve"
RATES = (PUBLISH, CROWD)  # in messages a second; the others are in microseconds


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
class Aim:
    """What natslease must reach: a multiple of another side's median.

    Attributes:
        more: whether more is better.
    """

    operation: str
    target: float
    ours: str = OURS
    beside: str = REFERENCE
    more: bool = False

    def ratio(self, results: Results) -> float:
        """Ours as a multiple of the other's."""
        sides = results.series[self.operation]
        return sides[self.ours].median / sides[self.beside].median

    def is_reached(self, results: Results) -> bool:
        ratio = self.ratio(results)
        return ratio >= self.target if self.more else ratio <= self.target


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
    aims: list[Aim]
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
    cells = [
        [side, *(_cell(row.get(side), name) for name, row in results.series.items())]
        for side in sides
    ]
    print(table(["", *results.series], cells))
    print()
    rows = [
        [
            aim.operation,
            f"{aim.ours} / {aim.beside}",
            f"{aim.ratio(results):.2f}",
            f"{'>=' if aim.more else '<='} {aim.target:.2f}",
            "yes" if aim.is_reached(results) else "no",
        ]
        for aim in results.aims
    ]
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
    print(table(["", "what", "measured", "aim", "reached"], rows))


def _cell(series: Series | None, operation: str) -> str:
    if series is None:
        return ""
    if operation in RATES:
        return f"{series.median / 1000:,.1f}k/s"
    return f"{series.median:,.0f} ({series.quantile(0.99):,.0f})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table, as Markdown."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in [head, ["-" * width for width in widths], *rows]
    )


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
        "operations": {
            operation: {
                side: {
                    "median": series.median,
                    "p10": series.quantile(0.10),
                    "p90": series.quantile(0.90),
                    "p99": series.quantile(0.99),
                    "count": len(series.values),
                }
                for side, series in row.items()
            }
            for operation, row in results.series.items()
        },
        "aims": [
            {**vars(aim), "ratio": aim.ratio(results), "reached": aim.is_reached(results)}
            for aim in results.aims
        ],
        "figures": [vars(figure) for figure in results.figures],
    }


def bars(axis: Any, values: dict[str, float], text: str = "{:,.0f}") -> None:
    """Draws a bar for each side."""
    from matplotlib.ticker import MaxNLocator

    for place, (side, value) in enumerate(reversed(values.items())):
        axis.barh(place, value, color=_color(side), height=0.6)
        axis.annotate(
            text.format(value),
            (value, place),
            xytext=(4, -3),
            textcoords="offset points",
            fontsize=8,
        )
    _name_sides(axis, values)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.set_xlim(0, 1.15 * max(values.values()))


def spans(axis: Any, times: dict[str, tuple[float, float, float]]) -> None:
    """Draws for each side a median, and a line from a lower to an upper quantile."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for place, (side, (median, low, high)) in enumerate(reversed(times.items())):
        axis.plot([low, high], [place, place], color=_color(side), linewidth=2)
        axis.plot(median, place, "o", color=_color(side), markersize=7)
        axis.annotate(
            f"{median:,.0f}",
            (median, place),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axis.set_xscale("log")
    _name_sides(axis, times)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(axis="x", alpha=0.3)


def _color(side: str) -> str:
    return "#d1495b" if side.startswith(OURS) else "#5b6770"


def _name_sides(axis: Any, sides: Iterable[str]) -> None:
    from matplotlib.ticker import FuncFormatter

    names = list(sides)[::-1]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(-0.6, len(names) - 0.3)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.tick_params(labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def plot(results: Results, path: Path) -> None:
    """Draws each operation: medians, and lines from the 10th to the 99th percentile."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    columns = 3
    lines = -(-len(results.series) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(15, 3.4 * lines), layout="constrained")
    for axis in axes.flat[len(results.series) :]:
        axis.axis("off")
    for axis, (operation, row) in zip(axes.flat, results.series.items(), strict=False):
        if operation in RATES:
            axis.set_title(f"{operation}: messages a second, more is better", fontsize=11)
            bars(axis, {side: series.median for side, series in row.items()})
        else:
            axis.set_title(f"{operation}: microseconds, less is better", fontsize=11)
            spans(
                axis,
                {
                    side: (series.median, series.quantile(0.10), series.quantile(0.99))
                    for side, series in row.items()
                },
            )
    machine = results.machine
    figure.suptitle(
        "Medians, and lines from the 10th to the 99th percentile. "
        f"{machine['cpu']}, nats-server {machine['nats-server']}, Python {machine['python']}"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
