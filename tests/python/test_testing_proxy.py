"""The proxy of the test kit: what it does to the bytes, and to whom."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from natslease.testing import Direction, Proxy, TestingError


class Peers:
    """Both ends of connections through a proxy."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self.listener = self._open.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.listener.settimeout(10)
        self.proxy = self._open.enter_context(
            Proxy("nats://{}:{}".format(*self.listener.getsockname()))
        )

    def connect(self) -> tuple[socket.socket, socket.socket]:
        host, port = self.proxy.address.split(":")
        client = self._open.enter_context(socket.create_connection((host, int(port)), timeout=10))
        server = self._open.enter_context(self.listener.accept()[0])
        server.settimeout(10)
        return client, server

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def peers() -> Iterator[Peers]:
    made = Peers()
    yield made
    made.close()


def receive(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = end.recv(size - len(data))
        assert part, data
        data += part
    return data


def is_silent(end: socket.socket) -> bool:
    return not select.select([end], [], [], 0.2)[0]


def test_bytes_pass_both_ways(peers: Peers) -> None:
    client, server = peers.connect()
    data = bytes(range(256)) * 20_000
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    assert receive(server, len(data)) == data
    sender.join()
    server.sendall(b"answer")
    assert receive(client, 6) == b"answer"
    assert (peers.proxy.connections, peers.proxy.total_connections) == (1, 1)


def test_the_end_of_one_side_is_the_end_of_the_other(peers: Peers) -> None:
    client, server = peers.connect()
    server.close()
    assert client.recv(1) == b""
    client, server = peers.connect()
    client.close()
    assert server.recv(1) == b""
    assert peers.proxy.total_connections == 2


def test_stall_holds_back_and_fills_the_senders_buffer(peers: Peers) -> None:
    client, server = peers.connect()
    peers.proxy.stall()
    client.sendall(b"held")
    assert is_silent(server)
    client.setblocking(False)
    size = 4
    with suppress(BlockingIOError):
        while size < 1_000_000_000:
            size += client.send(b"x" * 65536)
    assert size < 1_000_000_000
    client.settimeout(10)
    peers.proxy.restore()
    assert receive(server, size)[:4] == b"held"


def test_one_direction(peers: Peers) -> None:
    client, server = peers.connect()
    peers.proxy.stall(Direction.FROM_SERVER)
    client.sendall(b"ping")
    assert receive(server, 4) == b"ping"
    server.sendall(b"pong")
    assert is_silent(client)
    peers.proxy.restore()
    assert receive(client, 4) == b"pong"


def test_new_connections_are_stalled_too(peers: Peers) -> None:
    peers.proxy.stall()
    client, server = peers.connect()
    server.sendall(b"INFO")
    assert is_silent(client)


def test_black_hole_swallows_and_resets_when_it_ends(peers: Peers) -> None:
    client, server = peers.connect()
    other, other_server = peers.connect()
    peers.proxy.black_hole()
    client.sendall(b"x" * 50_000_000)  # more than all buffers together
    assert is_silent(server)
    peers.proxy.restore()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    other.sendall(b"whole")
    assert receive(other_server, 5) == b"whole"


def test_trickle(peers: Peers) -> None:
    client, server = peers.connect()
    peers.proxy.trickle(0.02)
    began = time.monotonic()
    client.sendall(b"0123456789")
    assert server.recv(10) == b"0"
    assert receive(server, 9) == b"123456789"
    assert time.monotonic() - began >= 9 * 0.02
    peers.proxy.restore()
    client.sendall(b"x" * 10_000)
    receive(server, 10_000)
    with pytest.raises(ValueError, match="interval"):
        peers.proxy.trickle(0)


def test_cut_resets_and_takes_new_connections(peers: Peers) -> None:
    client, server = peers.connect()
    peers.proxy.cut()
    for end in (client, server):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    assert peers.proxy.connections == 0
    client, server = peers.connect()
    client.sendall(b"again")
    assert receive(server, 5) == b"again"


def test_a_server_that_is_down(peers: Peers) -> None:
    peers.listener.close()
    host, port = peers.proxy.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        assert client.recv(1) == b""
    assert peers.proxy.total_connections == 0


def test_close(peers: Peers) -> None:
    client, _ = peers.connect()
    peers.proxy.close()
    peers.proxy.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(TestingError, match="closed"):
        peers.proxy.stall()
    host, port = peers.proxy.address.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=10)
    assert not [t for t in threading.enumerate() if t.name == f"proxy {port}"]


@pytest.mark.parametrize("target", ["", "nats://localhost", ":4222", "localhost:port"])
def test_bad_targets(target: str) -> None:
    with pytest.raises(ValueError, match=r"target must be|Port could not be"):
        Proxy(target)
