"""``natslease doctor``: what is wrong, and what to do."""

from __future__ import annotations

import click

import natslease
from natslease.doctor import examine

from ._command import Exit, connected
from ._output import Output

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command("doctor")
@click.argument("pattern", default="*")
@click.option("--queue", "stream", metavar="STREAM", help="Whether this client may use it.")
@click.option("--subject", metavar="SUBJECT", help="Of that queue; left out, as the stream.")
@click.option("--consumer", metavar="NAME", help="Of that queue; left out, as the stream.")
@click.option("--monitor", default="", metavar="URL", help="Of the server's monitoring port.")
@click.option("--trial", is_flag=True, help="Make a queue, use it, and delete it.")
@connected
def doctor(
    client: natslease.Client,
    output: Output,
    *,
    pattern: str,
    stream: str | None,
    subject: str | None,
    consumer: str | None,
    monitor: str,
    trial: bool,
) -> None:
    """Look at the connection, the server, JetStream, its limits, permissions and how durable the
    streams are that match PATTERN, and say what to do.

    Nothing is changed without --trial. Ends with 1 when something does not work.
    """
    queue = client.queue(stream, subject=subject, consumer=consumer) if stream else None
    findings = []
    for finding in examine(client, pattern=pattern, queue=queue, monitor=monitor, trial=trial):
        findings.append(finding)
        if not output.as_json:
            mark = click.style(f"{finding.status:7}", fg=_COLOURS[finding.status])
            click.echo(f"{mark}  {finding.check}: {finding.text}")
            if finding.advice:
                click.echo(f"         {finding.advice}")
    if output.as_json:
        output.json([finding._asdict() for finding in findings])
    if any(finding.status == "failed" for finding in findings):
        raise click.exceptions.Exit(Exit.SOME_FAILED)


COMMANDS = (doctor,)
