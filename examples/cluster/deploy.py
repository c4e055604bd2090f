"""Puts the configuration of conf/ onto three servers of this machine."""

from __future__ import annotations

import os
import secrets
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import trustme

import natslease
from natslease.testing import Server, ServerFailed

CONF = Path(__file__).with_name("conf")
NAMES = ("nats-1", "nats-2", "nats-3")
ROLES = ("web", "worker", "janitor", "operator")
PATIENCE = 60.0
_PAUSE = 0.05


class Deployment:
    """Three servers, their certificates, and the passwords of the roles.

    The files are those of conf/; addresses, folders and the grace period in them are exchanged for
    what suits this machine.

    Attributes:
        servers: in the order of their names.
        authority: the file with the certificate that clients check the servers' against.
        passwords: by role.
    """

    def __init__(self, binary: Path | None = None) -> None:
        self.servers = [Server(name=name, binary=binary, timeout=PATIENCE) for name in NAMES]
        self.passwords = {role: f"p-{secrets.token_urlsafe(18)}" for role in ROLES}
        self._given_back = ExitStack()
        for server in self.servers:
            self._given_back.callback(server.close)
        try:
            self._install()
        except BaseException:
            self.close()
            raise

    def _install(self) -> None:
        authority = trustme.CA()
        routes = {f"{name}:6222": self._free_address() for name in NAMES}
        for server in self.servers:
            folder = server.directory / "etc"
            (folder / "tls").mkdir(parents=True)
            authority.cert_pem.write_to_path(str(folder / "tls" / "ca.pem"))
            certificate = authority.issue_cert(server.name, server.host)
            certificate.private_key_pem.write_to_path(str(folder / "tls" / "node-key.pem"))
            for pem in certificate.cert_chain_pems:
                pem.write_to_path(str(folder / "tls" / "node.pem"), append=True)
            here = {
                "/etc/nats": str(folder),
                "/var/lib/nats": str(server.directory / "data"),
                "0.0.0.0:4222": f"{server.host}:{server.port}",
                "0.0.0.0:6222": routes[f"{server.name}:6222"],
                "127.0.0.1:8222": server.monitor_url.removeprefix("http://"),
                # Here are only clients of natslease, which need none.
                'lame_duck_grace_period: "10s"': 'lame_duck_grace_period: "1s"',
                **routes,
            }
            for path in CONF.iterdir():
                text = path.read_text()
                for literal, there in here.items():
                    text = text.replace(literal, there)
                (folder / path.name).write_text(text)
            server.config = f'include "etc/{server.name}.conf"'
        self.authority = self.servers[0].directory / "etc" / "tls" / "ca.pem"
        # As systemd's EnvironmentFile would; servers inherit them.
        os.environ.update({f"{role.upper()}_PASSWORD": p for role, p in self.passwords.items()})

    def _free_address(self) -> str:
        """A port that nobody else gets, while a server can listen on it."""
        reservation = self._given_back.enter_context(socket.socket())
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        return "127.0.0.1:{1}".format(*reservation.getsockname())

    def __enter__(self) -> Deployment:
        """Starts the servers, and returns when JetStream works on each."""
        try:
            for server in self.servers:
                server.start()
            for server in self.servers:
                await_health(server)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kills the servers and removes their data."""
        self._given_back.close()

    def environment(self, role: str) -> dict[str, str]:
        """What ``natslease.Client.from_env()``, and other NATS programs, read."""
        return {
            "NATS_URL": ",".join(f"tls://{server.host}:{server.port}" for server in self.servers),
            "NATS_CA": str(self.authority),
            "NATS_USER": role,
            "NATS_PASSWORD": self.passwords[role],
            "NATS_INBOX_PREFIX": f"_INBOX.{role}",
        }

    def client(self, role: str) -> natslease.Client:
        """A client with the permissions of a role."""
        return natslease.Client.from_env(self.environment(role), name=role, timeout=5.0)


def await_health(server: Server) -> None:
    """Waits until the server answers /healthz with 200: it has caught up with the others.

    Raises:
        ServerFailed: it does not.
    """
    deadline = time.monotonic() + PATIENCE
    while not _is_healthy(server, deadline):
        time.sleep(_PAUSE)


def _is_healthy(server: Server, deadline: float) -> bool:
    try:
        server.monitor("healthz")
    except ServerFailed:
        if time.monotonic() > deadline:
            raise
        return False
    return True
