"""``natslease workers``, ``task``, ``events`` and ``sweep``: who does what, what nobody wants."""

from __future__ import annotations

import time
from datetime import datetime

import click

import natslease
from natslease import show
from natslease.fleet import Fleet

from ._command import Command, Exit, confirm, connected, yes_option
from ._output import Column, Output

# How often new events are looked for, in seconds.
_PAUSE = 0.5


def on_fleet(function: Command) -> Command:
    """Options that name where workers and events are kept."""
    for decorate in (
        click.option("--events", default="natslease_events", help="The stream of the events."),
        click.option("--bucket", default="natslease_workers", help="The bucket of the workers."),
    ):
        function = decorate(function)
    return function


@click.command("workers")
@click.option("--status", type=click.Choice(["online", "stale", "offline", "stopped"]))
@click.option("--queue", "stream", metavar="QUEUE", help="Only those that have tasks of it.")
@on_fleet
@connected
def workers(
    client: natslease.Client,
    output: Output,
    *,
    status: str | None,
    stream: str | None,
    bucket: str,
    events: str,
) -> None:
    """List workers of the last seven days: whether they are there, and what they do."""
    rows = [show.worker_row(w) for w in Fleet(client, bucket=bucket, events=events).workers()]
    if status is not None:
        rows = [row for row in rows if row["status"] == status]
    if stream is not None:
        rows = [row for row in rows if row["holding"].get(stream)]
    output.table(rows, show.WORKER_COLUMNS, none="no workers")


@click.command("task")
@click.argument("stream", metavar="QUEUE")
@click.argument("task")
@click.option("--seq", is_flag=True, help="TASK is a sequence in the stream, not an id.")
@on_fleet
@connected
def task(
    client: natslease.Client,
    output: Output,
    *,
    stream: str,
    task: str,
    seq: bool,
    bucket: str,
    events: str,
) -> None:
    """Tell who has the task with the id TASK, since when, and what happened to it before."""
    if seq and not task.isdecimal():
        raise click.UsageError(f"--seq: {task!r} is no number")
    fleet = Fleet(client, bucket=bucket, events=events)
    history = fleet.task(stream, int(task) if seq else task)
    if history is None:
        click.echo(f"nothing is known of the task {task} of {stream}", err=True)
        raise click.exceptions.Exit(Exit.NOT_FOUND)
    if output.as_json:
        output.json(show.task_row(history))
        return
    click.echo(str(history))
    for event in history.events:
        attempt = f" (attempt {event.attempt})" if event.attempt else ""
        reason = f": {event.reason}" if event.reason else ""
        unsure = ", the server's word did not come" if event.unsure else ""
        click.echo(
            f"  {_moment(event.at)}  {event.kind}{attempt} by {event.worker}{reason}{unsure}"
        )


@click.command("events")
@click.argument("stream", metavar="QUEUE", required=False)
@click.option(
    "--since", default=3600.0, show_default=True, metavar="SECONDS", help="Back from now."
)
@click.option("--limit", default=1000, show_default=True, help="At most so many at a time.")
@click.option("--follow", "-f", is_flag=True, help="Go on with those that come.")
@on_fleet
@connected
def show_events(
    client: natslease.Client,
    output: Output,
    *,
    stream: str | None,
    since: float,
    limit: int,
    follow: bool,
    bucket: str,
    events: str,
) -> None:
    """Print what workers did, of one queue or of all: a line for each batch of tasks."""
    fleet = Fleet(client, bucket=bucket, events=events)
    start, seen = time.time() - since, set[str]()
    while True:
        found = fleet.events(stream, since=start, limit=limit)
        fresh = [event for event in found if repr(event) not in seen]
        for event in fresh:
            if output.as_json:
                output.json(show.event_row(event))
            else:
                named = [name or f"#{n}" for name, n in zip(event.ids, event.seqs, strict=False)]
                tasks = ", ".join(named or [f"#{n}" for n in event.seqs])
                reason = f" ({event.reason})" if event.reason else ""
                what = f"{event.kind:8} {len(event.seqs):4} of {event.stream}"
                click.echo(f"{_moment(event.at)}  {what}  by {event.worker}: {tasks}{reason}")
        if not follow:
            return
        if found:
            # Those of the last moment are asked for again: others may have come for it.
            start = found[-1].at
            seen = {repr(event) for event in found if event.at == start}
        time.sleep(_PAUSE)


@click.command("sweep")
@click.argument("pattern")
@click.option("--keep", multiple=True, metavar="QUEUE", help="One that is wanted; may be repeated.")
@click.option("--min-age", default=3600.0, show_default=True, metavar="SECONDS", help="Unused for.")
@click.option("--limit", default=100, show_default=True, help="At most so many.")
@click.option("--dry-run", is_flag=True, help="Only list them.")
@yes_option
@connected
def sweep(
    client: natslease.Client,
    output: Output,
    *,
    pattern: str,
    keep: tuple[str, ...],
    min_age: float,
    limit: int,
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete queues that match PATTERN, and that nobody has used for a while, with their tasks."""
    fleet = Fleet(client)
    found = fleet.sweep(pattern, keep=keep, min_age=min_age, limit=limit)
    names = [orphan.name for orphan in found.orphans]
    deleted: list[str] = []
    failed: dict[str, str] = {}
    if not output.as_json:
        rows = [
            {"name": o.name, "messages": o.messages, "bytes": o.bytes, "last_at": o.last_at}
            for o in found.orphans
        ]
        columns: dict[str, Column] = {
            "name": ("QUEUE", str),
            "messages": ("MESSAGES", show.number),
            "bytes": ("SIZE", show.size),
            "last_at": ("LAST MESSAGE", show.age),
        }
        output.table(rows, columns, none="no orphan queues")
        if found.more:
            click.echo("there are more: --limit is reached")
    if names and not dry_run:
        confirm(f"Delete {len(names):,} queues with all their tasks?", yes=yes)
        done = fleet.sweep(
            pattern,
            keep=lambda stream: stream.name in keep or stream.name not in names,
            min_age=min_age,
            limit=limit,
            dry_run=False,
        )
        deleted, failed = done.deleted, {name: str(e) for name, e in done.failed.items()}
        for name, error in failed.items():
            click.echo(f"{name}: {error}", err=True)
    if output.as_json:
        output.json({"orphans": names, "deleted": deleted, "failed": failed, "more": found.more})
    elif deleted:
        click.echo(f"{len(deleted):,} queues deleted")
    if failed:
        raise click.exceptions.Exit(Exit.SOME_FAILED)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


COMMANDS = (workers, task, show_events, sweep)
