"""As much of a NATS client as tests need that must not depend on natslease."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from natslease.testing import Server


class Wire:
    """One connection."""

    def __init__(self, server: Server, **options: object) -> None:
        self.socket = socket.create_connection((server.host, server.port), timeout=10)
        self.file = self.socket.makefile("rwb", buffering=0)
        self.info: dict[str, Any] = json.loads(self.file.readline()[len(b"INFO ") :])
        self._subscriptions = 0
        self.send(f"CONNECT {json.dumps({'verbose': False, **options})}")
        self.send("PING")

    def send(self, line: str) -> None:
        self.file.write(line.encode() + b"\r\n")

    def readline(self) -> str:
        return self.file.readline().decode().strip()

    def request(self, subject: str, body: object) -> dict[str, Any]:
        """Asks JetStream: its API, or to store a message."""
        text = json.dumps(body)
        inbox = f"_INBOX.{base64.b16encode(os.urandom(8)).decode()}"
        self._subscriptions += 1
        self.send(f"SUB {inbox} {self._subscriptions}")
        self.send(f"PUB {subject} {inbox} {len(text)}\r\n{text}")
        while not (line := self.readline()).startswith("MSG"):
            assert not line.startswith("-ERR"), line
        left, answer = int(line.split()[-1]) + 2, b""
        while len(answer) < left:
            answer += self.file.read(left - len(answer)) or b""
        result: dict[str, Any] = json.loads(answer)
        return result

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@contextmanager
def connected(server: Server, **options: object) -> Iterator[Wire]:
    """A connection that the server has agreed to."""
    with closing(Wire(server, **options)) as wire:
        while (line := wire.readline()) != "PONG":
            assert line.startswith("INFO"), line
        yield wire
