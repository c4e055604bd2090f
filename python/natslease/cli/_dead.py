"""``natslease dead-letters`` and ``requeue``."""

from __future__ import annotations

import click

import natslease
from natslease.show import age, letter_row, number

from ._command import Command, Exit, confirm, connected, yes_option
from ._output import Output
from ._queue import find_queue, on_queue

_MOST = 10_000


def on_letters(function: Command) -> Command:
    """Names a queue and the stream of its dead letters."""
    for decorate in (
        click.option("--limit", default=100, show_default=True, help="At most so many."),
        click.option(
            "--letters",
            "letters_stream",
            required=True,
            metavar="STREAM",
            help="The stream of the dead letters: the queue's option dead_letters.",
        ),
        on_queue,
    ):
        function = decorate(function)
    return function


@click.command("dead-letters")
@on_letters
@connected
def dead_letters(
    client: natslease.Client,
    output: Output,
    *,
    stream: str,
    subject: str | None,
    consumer: str | None,
    letters_stream: str,
    limit: int,
) -> None:
    """List the tasks of a queue that have failed on their last attempt, the oldest first."""
    queue = find_queue(client, stream, subject, consumer, dead_letters=letters_stream)
    rows = [letter_row(letter) for letter in queue.dead_letters(limit)]
    output.table(
        rows,
        {
            "id": ("TASK", str),
            "seq": ("SEQ", number),
            "attempts": ("ATTEMPTS", number),
            "died_at": ("DIED", age),
            "worker": ("LAST WORKER", str),
            "reason": ("REASON", str),
        },
        none=f"{stream} has no dead letters",
    )


@click.command("requeue")
@on_letters
@click.argument("ids", nargs=-1, metavar="TASK...")
@click.option("--all", "everything", is_flag=True, help="All of them, up to --limit.")
@yes_option
@connected
def requeue(
    client: natslease.Client,
    output: Output,
    *,
    stream: str,
    subject: str | None,
    consumer: str | None,
    letters_stream: str,
    limit: int,
    ids: tuple[str, ...],
    everything: bool,
    yes: bool,
) -> None:
    """Make tasks of dead letters again: those with the ids TASK, or all."""
    if everything == bool(ids):
        raise click.UsageError("give the ids of tasks, or --all")
    queue = find_queue(client, stream, subject, consumer, dead_letters=letters_stream)
    letters = queue.dead_letters(limit if everything else _MOST)
    if ids:
        letters = [letter for letter in letters if letter.id in ids]
        missing = set(ids) - {letter.id for letter in letters}
        if missing:
            click.echo(f"no dead letter of: {', '.join(sorted(missing))}", err=True)
            raise click.exceptions.Exit(Exit.NOT_FOUND)
    confirm(f"Requeue {len(letters):,} dead letters of {stream}?", yes=yes)
    report = queue.requeue(letters)
    failed = [{"id": r.id, "error": str(r.error)} for r in report.failed]
    requeued = len(report.accepted)
    for failure in failed:
        click.echo(f"{failure['id']}: {failure['error']}", err=True)
    output.record(
        {"requeued": requeued, "failed": failed}, f"{requeued:,} requeued, {len(failed):,} failed"
    )
    if failed:
        raise click.exceptions.Exit(Exit.SOME_FAILED)


COMMANDS = (dead_letters, requeue)
