"""``natslease bench``: what this machine and that server can do together."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from secrets import token_hex
from statistics import median, quantiles
from typing import TypeVar

import click

import natslease

from ._command import connected
from ._output import Output

T = TypeVar("T")


@click.command("bench")
@click.option("--tasks", default=10_000, show_default=True, help="How many tasks are published.")
@click.option("--size", default=230, show_default=True, help="Bytes of each.")
@click.option("--batch", default=64, show_default=True, help="How many are reserved at a time.")
@click.option("--storage", type=click.Choice(["file", "memory"]), default="file", show_default=True)
@connected
def bench(
    client: natslease.Client, output: Output, *, tasks: int, size: int, batch: int, storage: str
) -> None:
    """Publish, reserve and acknowledge on a queue of its own, which is deleted afterwards."""
    queue = client.queue(f"natslease_bench_{token_hex(4)}", storage=storage)
    queue.ensure()
    try:
        started = time.perf_counter()
        report = queue.publish([bytes(size)] * tasks, timeout=600)
        publishing = time.perf_counter() - started
        if report.failed:
            raise click.ClickException(f"publishing failed: {report.failed[0].error}")
        reserving: list[float] = []
        settling: list[float] = []
        done = 0
        while done < tasks:
            leases = _timed(reserving, partial(queue.reserve, batch, wait=1.0))
            if not leases:
                raise click.ClickException(f"{tasks - done:,} of {tasks:,} tasks did not come back")
            _timed(settling, partial(queue.ack, leases))
            done += len(leases)
        round_trip = client.ping()
    finally:
        queue.delete()
    figures = {f"reserve_{batch}": _spread(reserving), f"ack_{batch}": _spread(settling)}
    drained = tasks / (sum(reserving) + sum(settling))
    if output.as_json:
        output.json(
            {
                "round_trip_us": round_trip * 1e6,
                "published_per_s": tasks / publishing,
                "drained_per_s": drained,
                **{f"{name}_us": spread for name, spread in figures.items()},
            }
        )
        return
    click.echo(f"round trip  {round_trip * 1e6:,.0f} us")
    click.echo(f"published   {tasks / publishing:,.0f} tasks/s")
    click.echo(f"drained     {drained:,.0f} tasks/s, one batch after the other")
    for name, spread in figures.items():
        click.echo(f"{name:11} median {spread['median']:,.0f} us, p99 {spread['p99']:,.0f} us")


def _timed(times: list[float], call: Callable[[], T]) -> T:
    started = time.perf_counter()
    result = call()
    times.append(time.perf_counter() - started)
    return result


def _spread(times: list[float]) -> dict[str, float]:
    """Median and 99th percentile in microseconds."""
    last = quantiles(times, n=100)[98] if len(times) > 1 else times[0]
    return {"median": median(times) * 1e6, "p99": last * 1e6}


COMMANDS = (bench,)
