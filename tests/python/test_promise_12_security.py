"""Who the server is, who the client is, and what it may do: each refusal has its type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import natslease
from certificates import Authority
from faces import Face
from natslease.testing import Server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def tls_server(
    pair: tuple[Path, Path], *, ca: Path | None = None, first: bool = False
) -> Iterator[Server]:
    """A server with this certificate; one that demands the clients' own when ca is given."""
    lines = [f"cert_file: {json.dumps(str(pair[0]))}", f"key_file: {json.dumps(str(pair[1]))}"]
    if ca is not None:
        lines += [f"ca_file: {json.dumps(str(ca))}", "verify: true"]
    if first:
        lines.append("handshake_first: true")
    with Server(config="tls {\n" + "\n".join(lines) + "\n}") as server:
        yield server


def works(client: Any) -> None:
    """Uses a queue."""
    queue = client.queue("tasks")
    queue.ensure()
    queue.publish([b"x"])
    (lease,) = queue.reserve(1, wait=1)
    assert lease.ack().status == "settled"


def refused(client: Any, kind: type[natslease.Error], text: str) -> natslease.Error:
    """Every kind of call is refused, in the same way, at once."""
    queue = client.queue("tasks")
    for call in (client.ping, queue.info, queue.reserve):
        with pytest.raises(kind, match=text) as raised:
            call(timeout=10)
        assert type(raised.value) is kind
        assert raised.value.outcome == "not_sent"
        if isinstance(raised.value, natslease.Unavailable):
            break  # the breaker counts them
    error: natslease.Error = raised.value
    return error


class TestTLS:
    def test_an_authority_of_ones_own(self, face: Face, authority: Authority) -> None:
        with tls_server(authority.issue("server", "127.0.0.1")) as server:
            works(face.client(server.url, tls_ca=authority.file))
            refused(face.client(server.url, name="x"), natslease.ConnectFailed, "unknown authority")

    def test_another_authority(self, face: Face, authority: Authority, tmp_path: Path) -> None:
        other = Authority(tmp_path, "other")
        with tls_server(authority.issue("server", "127.0.0.1")) as server:
            client = face.client(server.url, tls_ca=other.file)
            refused(client, natslease.ConnectFailed, "unknown authority: set tls_ca|TLS.CAFile")

    def test_mutual(self, face: Face, authority: Authority, tmp_path: Path) -> None:
        ca, pair = authority.file, authority.issue("server", "127.0.0.1")
        cert, key = authority.issue("client")
        with tls_server(pair, ca=ca) as server:
            works(face.client(server.url, tls_ca=ca, tls_cert=cert, tls_key=key))
            refused(face.client(server.url, tls_ca=ca), natslease.ConnectFailed, "certificate")
            cert, key = Authority(tmp_path, "other").issue("stranger")
            stranger = face.client(server.url, tls_ca=ca, tls_cert=cert, tls_key=key)
            refused(stranger, natslease.ConnectFailed, "certificate|authority|reset|closed|EOF")
            cert, key = authority.issue("late", expired=True)
            late = face.client(server.url, tls_ca=ca, tls_cert=cert, tls_key=key)
            refused(late, natslease.ConnectFailed, "expired|certificate|reset|closed|EOF")

    def test_the_wrong_name(self, face: Face, authority: Authority) -> None:
        with tls_server(authority.issue("server", "nats.example.org")) as server:
            ca = authority.file
            works(face.client(server.url, tls_ca=ca, tls_server_name="nats.example.org"))
            refused(face.client(server.url, tls_ca=ca), natslease.ConnectFailed, "another name")

    def test_an_expired_certificate(self, face: Face, authority: Authority) -> None:
        with tls_server(authority.issue("server", "127.0.0.1", expired=True)) as server:
            client = face.client(server.url, tls_ca=authority.file)
            refused(client, natslease.ConnectFailed, "expired")

    def test_tls_first(self, face: Face, authority: Authority) -> None:
        ca = authority.file
        with tls_server(authority.issue("server", "127.0.0.1"), first=True) as server:
            works(face.client(server.url, tls_ca=ca, tls_first=True))
            client = face.client(server.url, tls_ca=ca, connect_timeout=1.0)
            refused(client, natslease.ConnectFailed, r"TLS|in time|EOF|reset")

    def test_a_server_without_tls_is_not_talked_to(
        self, face: Face, authority: Authority, nats_url: str
    ) -> None:
        client = face.client(nats_url, tls_ca=authority.file)
        refused(client, natslease.ConnectFailed, "does not speak TLS")


# From NATS's documentation: they open nothing.
NKEY_SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
NKEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
OTHER_SEED = "SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU"


CLIENTS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "user": (
        "user: u, password: p",
        {"user": "u", "password": "p"},
        {"user": "u", "password": "hunter2"},
    ),
    "token": ("token: t", {"token": "t"}, {"token": "hunter2"}),
    "nkey": (
        f"users: [{{ nkey: {NKEY} }}]",
        {"nkey_seed": NKEY_SEED},
        {"nkey_seed": OTHER_SEED},
    ),
}


@pytest.mark.parametrize(("config", "good", "wrong"), CLIENTS.values(), ids=CLIENTS)
def test_who_the_client_is(
    face: Face, config: str, good: dict[str, str], wrong: dict[str, str]
) -> None:
    with Server(config=f"authorization {{ {config} }}") as server:
        works(face.client(server.url, **good))
        for options in (wrong, {}):
            client = face.client(server.url, **options)
            error = refused(client, natslease.AuthenticationFailed, "refused the credentials")
            assert not isinstance(error, OSError)
            assert all(
                secret not in error.explain() for secret in wrong.values() if len(secret) > 1
            )
