"""``natslease server``: an embedded nats-server."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from natslease.testing import ServerNotFound, find_server


@click.command("server")
@click.option("--port", default=4222, show_default=True, help="For clients, on 127.0.0.1.")
@click.option("--monitor", type=int, metavar="PORT", help="For the server's HTTP monitoring.")
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where JetStream keeps its data; left out: a new temporary directory, which stays.",
)
def server(port: int, monitor: int | None, store: Path | None) -> None:
    """Run a nats-server with JetStream, for development. Ctrl-C ends it.

    Anybody on this machine can use it. The program is the one of natslease-server, see
    pip install 'natslease[server]', or one that is on PATH.
    """
    try:
        program = find_server()
    except ServerNotFound as error:
        raise click.ClickException(str(error)) from error
    data = store or Path(tempfile.mkdtemp(prefix="natslease-server-"))
    click.echo(f"nats://localhost:{port}, data in {data}", err=True)
    arguments = [str(program), "-js", "-a", "127.0.0.1", "-p", str(port), "-sd", str(data)]
    if monitor is not None:
        arguments += ["-m", str(monitor)]
    # In place of this process: signals reach it, and its exit code is ours.
    os.execv(program, arguments)


COMMANDS = (server,)
