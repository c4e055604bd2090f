"""What every command has: a client from options and the environment, output, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from typing import Any, NoReturn

import click

import natslease

from ._output import Output


class Exit(IntEnum):
    """How a command ends."""

    DONE = 0
    SOME_FAILED = 1
    USAGE = 2
    OUTAGE = 3
    NOT_FOUND = 4
    NOT_ALLOWED = 5


# By the first that fits.
_CODES: tuple[tuple[type[natslease.Error], Exit], ...] = (
    (natslease.ConfigError, Exit.USAGE),
    (natslease.InvalidLease, Exit.USAGE),
    (natslease.AuthenticationFailed, Exit.NOT_ALLOWED),
    (natslease.PermissionDenied, Exit.NOT_ALLOWED),
    (natslease.QueueNotFound, Exit.NOT_FOUND),
    (natslease.Unavailable, Exit.OUTAGE),
    (natslease.DeadlineExceeded, Exit.OUTAGE),
)

# Neither passwords nor tokens: other users of the machine see a process's arguments.
_CONNECTION = (
    click.option("--url", metavar="URL", help="The server, or several with commas. [NATS_URL]"),
    click.option("--creds", metavar="PATH", help="A credentials file. [NATS_CREDS]"),
    click.option("--tls-ca", metavar="PATH", help="The authorities' certificates. [NATS_CA]"),
    click.option("--domain", metavar="NAME", help="The JetStream domain. [NATS_DOMAIN]"),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0.001),
        metavar="SECONDS",
        help="For each call, 5 when left out. [NATS_TIMEOUT]",
    ),
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

Command = Callable[..., Any]


def connected(function: Command) -> Command:
    """Gives a command a client and an output, in front of its own options."""

    @wraps(function)
    def call(
        *,
        url: str | None,
        creds: str | None,
        tls_ca: str | None,
        domain: str | None,
        timeout: float | None,
        as_json: bool,
        **options: Any,
    ) -> None:
        named = {
            "servers": url,
            "credentials_file": creds,
            "tls_ca": tls_ca,
            "domain": domain,
            "timeout": timeout,
        }
        given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        with exit_codes(as_json=as_json), natslease.Client.from_env(**given) as client:
            function(client, Output(as_json=as_json), **options)

    decorated: Command = call
    for option in (_JSON, *reversed(_CONNECTION)):
        decorated = option(decorated)
    return decorated


@contextmanager
def exit_codes(*, as_json: bool) -> Iterator[None]:
    """Ends the program where natslease raises, with what is to be done about it."""
    try:
        yield
    except natslease.Error as error:
        end_with(error, as_json=as_json)


def end_with(error: natslease.Error, *, as_json: bool) -> NoReturn:
    """Tells an error and ends the program."""
    if as_json:
        described = {
            "code": error.code,
            "message": str(error),
            "outcome": error.outcome,
            "retry_after": error.retry_after,
        }
        click.echo(json.dumps({"error": described}), err=True)
    else:
        click.echo(f"error: {error.explain()}", err=True)
        if error.retry_after:
            click.echo(f"try again in {error.retry_after:.1f} s", err=True)
    code = next((code for kind, code in _CODES if isinstance(error, kind)), Exit.SOME_FAILED)
    raise click.exceptions.Exit(code)


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something is destroyed, unless ``--yes`` was given."""
    if not yes:
        click.confirm(question, abort=True, err=True)


yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
