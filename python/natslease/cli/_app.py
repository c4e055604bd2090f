"""All commands together."""

from __future__ import annotations

import click

from natslease import __version__

from . import _bench, _dead, _doctor, _fleet, _queues, _server, _tasks

app = click.Group(
    name="natslease",
    help="Work queues on NATS JetStream: look at them, and do by hand what programs do.",
    epilog=(
        "Where the server is, and who asks, is read from the environment: NATS_URL, NATS_CREDS, "
        "NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_NKEY_SEED, NATS_CA, NATS_CERT, NATS_KEY, "
        "NATS_DOMAIN, NATS_TIMEOUT. Exit codes: 0 done; 1 some of it failed; 2 a wrong option; "
        "3 an outage, try again later; 4 not found; 5 not allowed."
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (_server, _tasks, _queues, _dead, _fleet, _doctor, _bench):
    for command in module.COMMANDS:
        app.add_command(command)
click.version_option(__version__, prog_name="natslease")(app)
