"""The argument QUEUE, and which queue it names."""

from __future__ import annotations

from collections.abc import Sequence

import click

import natslease

from ._command import Command


def on_queue(function: Command) -> Command:
    """Names a queue: the argument QUEUE and its options."""
    for decorate in (
        click.option(
            "--consumer", metavar="NAME", help="The consumer; left out, the stream's only one."
        ),
        click.option(
            "--subject",
            metavar="SUBJECT",
            help="What tasks are published to; left out, what the stream takes.",
        ),
        click.argument("stream", metavar="QUEUE"),
    ):
        function = decorate(function)
    return function


def find_queue(
    client: natslease.Client,
    stream: str,
    subject: str | None,
    consumer: str | None = None,
    *,
    only_subject: bool = False,
    dead_letters: str | None = None,
) -> natslease.Queue:
    """The queue of a stream, with the subject and the consumer that it has on the server.

    Args:
        only_subject: the consumer does not matter.

    Raises:
        ClickException: the stream has several, and it was not said which.
    """
    if subject is None or (consumer is None and not only_subject):
        found = _look(client, stream, consumers=not only_subject)
        if found is not None:
            subjects = found.subjects
            if not only_subject:
                fitting = [c for c in found.consumers if _fits(c, subject, consumer)]
                consumer = consumer or _only("--consumer", stream, "has", [c.name for c in fitting])
                subjects = next((c.subjects for c in fitting if c.subjects), subjects)
            subject = subject or _only("--subject", stream, "takes", subjects)
    return client.queue(stream, subject=subject, consumer=consumer, dead_letters=dead_letters)


def _fits(found: natslease.ConsumerInfo, subject: str | None, consumer: str | None) -> bool:
    if consumer is not None:
        return found.name == consumer
    return subject is None or not found.subjects or subject in found.subjects


def _look(client: natslease.Client, name: str, *, consumers: bool) -> natslease.StreamInfo | None:
    try:
        found = client.streams(name, consumers=consumers)
    except (natslease.PermissionDenied, natslease.ConfigError, natslease.Unavailable):
        return None  # the command itself says what is wrong, or the defaults will do
    return next((stream for stream in found if stream.name == name), None)


def _only(option: str, stream: str, verb: str, names: Sequence[str]) -> str | None:
    """The only one, if there is any."""
    if len(names) > 1 or any(sign in name for name in names for sign in "*>"):
        raise click.ClickException(f"{stream} {verb} {', '.join(names)}: say which by {option}")
    return names[0] if names else None
