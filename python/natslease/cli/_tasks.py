"""``natslease publish``, ``reserve`` and ``ack``: what programs do, by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, cast

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import natslease
from natslease.show import payload

from ._command import Exit, connected
from ._output import Output
from ._queue import find_queue, on_queue

# How many lines are published in a call.
_CHUNK = 5_000


@click.command("publish")
@on_queue
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--create", is_flag=True, help="Create the queue where it is missing.")
@click.option(
    "--id-key", metavar="KEY", help="The key of the objects whose value is the task's id."
)
@click.option("--raw", is_flag=True, help="Lines need not be JSON.")
@connected
def publish(
    client: natslease.Client,
    output: Output,
    *,
    stream: str,
    subject: str | None,
    consumer: str | None,
    file: IO[bytes],
    create: bool,
    id_key: str | None,
    raw: bool,
) -> None:
    """Publish a task for each line of FILE (standard input when left out), which is JSON.

    With ids the same file can be published again: within the queue's duplicate window, 2 minutes by
    default, nothing is queued twice.
    """
    queue = find_queue(client, stream, subject, consumer, only_subject=True)
    if create:
        queue.ensure()
    lines = _messages(file, id_key, raw=raw)
    accepted = duplicates = number = 0
    failures: list[dict[str, Any]] = []
    with _progress(file) as progress:
        task = progress.add_task("publishing", total=_count(file))
        while chunk := list(islice(lines, _CHUNK)):
            report = queue.publish([message for _, message in chunk])
            accepted += len(report.accepted)
            duplicates += len(report.duplicates)
            for result in report.failed:
                line = chunk[result.index][0]
                failures.append({"line": line, "error": str(result.error)})
                click.echo(f"line {line}: {result.error}", err=True)
            number += len(chunk)
            progress.update(task, completed=number)
    fields = {"accepted": accepted, "duplicates": duplicates, "failed": failures}
    output.record(
        fields, f"{accepted:,} accepted, {duplicates:,} duplicates, {len(failures):,} failed"
    )
    if failures:
        raise click.exceptions.Exit(Exit.SOME_FAILED)


def _messages(
    file: IO[bytes], id_key: str | None, *, raw: bool
) -> Iterator[tuple[int, natslease.Message]]:
    """The lines that are not empty, with their numbers."""
    for number, line in enumerate(file, start=1):
        data = line.rstrip(b"\r\n")
        if not data.strip():
            continue
        name: str | None = None
        if not raw or id_key is not None:
            try:
                value = json.loads(data)
            except ValueError as error:
                raise click.ClickException(
                    f"line {number} is not JSON: {error}. Nothing after the lines before it was "
                    "published; --raw publishes any lines"
                ) from error
            if id_key is not None:
                if not isinstance(value, dict) or value.get(id_key) is None:
                    raise click.ClickException(f"line {number} has no {id_key!r}")
                name = str(value[id_key])
        yield number, natslease.Message(data, id=name)


def _progress(file: IO[bytes]) -> Progress:
    # On standard error, and only where somebody can see it.
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )


def _count(file: IO[bytes]) -> int | None:
    """How many lines there are, for a file that can be read twice."""
    if file is sys.stdin.buffer or not file.seekable():
        return None
    with Path(file.name).open("rb") as again:
        return sum(1 for line in again if line.strip())


@click.command("reserve")
@on_queue
@click.option("-n", "n", default=1, show_default=True, help="At most so many, 1 to 10,000.")
@click.option("--wait", default=0.0, show_default=True, metavar="SECONDS", help="For the first.")
@click.option(
    "--then",
    type=click.Choice(["hold", "ack", "release"]),
    default="hold",
    show_default=True,
    help="What is done with them once they are printed.",
)
@connected
def reserve(
    client: natslease.Client,
    output: Output,
    *,
    stream: str,
    subject: str | None,
    consumer: str | None,
    n: int,
    wait: float,
    then: Literal["hold", "ack", "release"],
) -> None:
    """Reserve tasks and print each as a line of JSON.

    Held ones are leased until `expires_at` (seconds since 1970); natslease ack takes their
    `ack_subject`. An empty queue prints nothing.
    """
    queue = find_queue(client, stream, subject, consumer)
    batch = queue.reserve(n, wait=wait)
    for lease in batch:
        output.json(_describe(lease))
    if then == "ack":
        _show_results(Output(as_json=False), queue.ack(batch), [], quiet=True)
    elif then == "release":
        _show_results(Output(as_json=False), queue.release(batch), [], quiet=True)


def _describe(lease: natslease.Lease) -> dict[str, Any]:
    return {
        "id": lease.id,
        "seq": lease.seq,
        "attempt": lease.attempt,
        "expires_at": lease.expires_at,
        "ack_subject": lease.ack_subject,
        "headers": lease.headers,
        **payload(lease),
    }


@click.command("ack")
@on_queue
@click.argument("ack_subjects", nargs=-1, metavar="ACK_SUBJECT...")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["ack", "nak", "release", "extend", "term"]),
    default="ack",
    show_default=True,
    help="How they are settled.",
)
@click.option("--delay", default=0.0, metavar="SECONDS", help="After which a nak is offered again.")
@click.option("--reason", default="", help="Why, for nak and term.")
@connected
def ack(
    client: natslease.Client,
    output: Output,
    *,
    stream: str,
    subject: str | None,
    consumer: str | None,
    ack_subjects: tuple[str, ...],
    kind: str,
    delay: float,
    reason: str,
) -> None:
    """Settle leases by their ack subjects.

    When none is given, those of standard input, a line each: also the lines that natslease reserve
    has printed.
    """
    queue = find_queue(client, stream, subject, consumer)
    items = list(ack_subjects) or [_ack_subject(line) for line in sys.stdin if line.strip()]
    options: dict[str, Any] = {}
    if kind == "nak":
        options = {"delay": delay, "reason": reason}
    elif kind == "term":
        options = {"reason": reason}
    results = cast("list[natslease.SettleResult]", getattr(queue, kind)(items, **options))
    _show_results(output, results, items)


def _ack_subject(line: str) -> str:
    text = line.strip()
    if text.startswith("{"):
        try:
            return str(json.loads(text)["ack_subject"])
        except (ValueError, KeyError) as error:
            raise click.ClickException(f"no ack_subject in: {text:.80}") from error
    return text


def _show_results(
    output: Output,
    results: list[natslease.SettleResult],
    items: list[str],
    *,
    quiet: bool = False,
) -> None:
    settled = sum(result.status == "settled" for result in results)
    if output.as_json:
        for item, result in zip(items, results, strict=True):
            error = None if result.error is None else str(result.error)
            output.json(
                {"ack_subject": item, "status": result.status, "late": result.late, "error": error}
            )
    else:
        for result in results:
            if result.error is not None:
                click.echo(f"{result.status}: {result.error}", err=True)
        if not quiet:
            click.echo(f"{settled:,} settled, {len(results) - settled:,} not")
    if settled < len(results):
        raise click.exceptions.Exit(Exit.SOME_FAILED)


COMMANDS = (publish, reserve, ack)
