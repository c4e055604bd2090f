"""The faults. Each is made once, and begins and ends with each wave of calls."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from natslease.testing import Direction, Proxy, Server
from ports import INFO, TLS_INFO, deaf_port, silent_port

# A name server that listens there, and does not answer.
_RESOLVER = "127.0.0.153"
_DISK = 64 << 20


class Fault:
    """One fault.

    Attributes:
        server: a healthy server, or the one that the fault is about to befall.
        url: where the calls' clients connect.
        how: how the fault is made, for the table.
        connected: whether the clients had a connection before the fault began.
        mounts: whether it needs a mount namespace of its own.
        timeouts: of calls, in seconds: as a rule one within which nobody notices the silence, and
            one within which the session is given up.
    """

    how: ClassVar[str]
    connected: ClassVar[bool] = True
    mounts: ClassVar[bool] = False
    timeouts: ClassVar[tuple[float, ...]] = (0.4, 1.4)

    def __init__(self, stack: ExitStack) -> None:
        self.server = self.start(stack)
        self.url = self.server.url
        self.make(stack)

    def start(self, stack: ExitStack) -> Server:
        return stack.enter_context(Server())

    def make(self, stack: ExitStack) -> None:
        """Makes what the fault needs."""

    def begin(self, stuff: Callable[[], Any]) -> None:
        """The fault begins. ``stuff`` publishes more than the kernel takes."""

    def begun(self) -> None:
        """All calls have begun."""

    def end(self) -> None:
        """It is over, and the server as it was."""


class _Unconnected(Fault):
    connected = False
    # connect_timeout is in between: see the harness.
    timeouts = (0.2, 0.5)


class DeafPort(_Unconnected):
    how = "a listening socket whose backlog is full: the kernel does not answer SYNs"

    def make(self, stack: ExitStack) -> None:
        self.url = stack.enter_context(deaf_port())


class NoInfo(_Unconnected):
    how = "a port that accepts, and never speaks"

    def make(self, stack: ExitStack) -> None:
        self.url = stack.enter_context(silent_port())


class HalfInfo(_Unconnected):
    how = "a port that sends the first 20 bytes of INFO"

    def make(self, stack: ExitStack) -> None:
        self.url = stack.enter_context(silent_port(sends=INFO[:20]))


class NoAnswerToConnect(_Unconnected):
    how = "a port that sends INFO, and nothing after it"

    def make(self, stack: ExitStack) -> None:
        self.url = stack.enter_context(silent_port(sends=INFO))


class SlowGreeting(_Unconnected):
    how = "a proxy passes a byte every 20 ms from the beginning"

    def make(self, stack: ExitStack) -> None:
        proxy = stack.enter_context(Proxy(self.server.url))
        proxy.trickle(0.02)
        self.url = proxy.url


class HangingLookup(_Unconnected):
    how = "/etc/resolv.conf names a UDP port that is bound and never answers"
    mounts = True

    def make(self, stack: ExitStack) -> None:
        name_server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        name_server.bind((_RESOLVER, 53))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        configuration = Path(folder, "resolv.conf")
        configuration.write_text(f"nameserver {_RESOLVER}\n")
        _run("mount", "--bind", str(configuration), "/etc/resolv.conf")
        stack.callback(_run, "umount", "/etc/resolv.conf")
        self.url = "nats://nats.example.org:4222"


class StalledHandshake(_Unconnected):
    how = "a port that demands TLS in its INFO, and does not answer the ClientHello"

    def make(self, stack: ExitStack) -> None:
        self.url = stack.enter_context(silent_port(sends=TLS_INFO))


class FrozenServer(Fault):
    how = "SIGSTOP to nats-server, SIGCONT after the calls"

    def begin(self, stuff: Callable[[], Any]) -> None:
        self.server.freeze()

    def end(self) -> None:
        self.server.thaw()


class _Proxied(Fault):
    def make(self, stack: ExitStack) -> None:
        self.proxy = stack.enter_context(Proxy(self.server.url))
        self.url = self.proxy.url

    def end(self) -> None:
        self.proxy.restore()


class BlackHole(_Proxied):
    how = "a proxy that reads both ways and passes nothing on, from mid-stream on"

    def begin(self, stuff: Callable[[], Any]) -> None:
        self.proxy.black_hole()


class OneByteAtATime(_Proxied):
    how = "a proxy passes the server's answers a byte every 20 ms"

    def begin(self, stuff: Callable[[], Any]) -> None:
        self.proxy.trickle(0.02, Direction.FROM_SERVER)


class FullBuffer(_Proxied):
    how = "a proxy stops reading from the client, which has 12 MB to send"

    def begin(self, stuff: Callable[[], Any]) -> None:
        self.proxy.stall(Direction.FROM_CLIENT)
        stuff()


class _Later(Fault):
    """Something happens when the calls are under way."""

    # Between when the last call was begun and when all have been written.
    delay: ClassVar[float] = 0.2
    timeouts = (3.0,)

    def begin(self, stuff: Callable[[], Any]) -> None:
        self.all_begun = threading.Event()
        self.problem: BaseException | None = None
        self.thread = threading.Thread(target=self._happen)
        self.thread.start()

    def begun(self) -> None:
        self.all_begun.set()

    def _happen(self) -> None:
        self.all_begun.wait()
        time.sleep(self.delay)
        try:
            self.happen()
        except BaseException as error:  # noqa: BLE001 (raised by end)
            self.problem = error

    def happen(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        self.all_begun.set()
        self.thread.join()
        if self.problem is not None:
            raise self.problem


class ResetInMidMessage(_Later, _Proxied):
    how = "a proxy passes the answers a byte every 10 ms, and 200 ms after the last call sends RST"

    def begin(self, stuff: Callable[[], Any]) -> None:
        self.proxy.trickle(0.01, Direction.FROM_SERVER)
        super().begin(stuff)

    def happen(self) -> None:
        self.proxy.cut()
        self.proxy.restore()


class KillAndRestart(_Later):
    how = "SIGSTOP, the calls, SIGKILL 200 ms later, and the server is started again on its data"

    def begin(self, stuff: Callable[[], Any]) -> None:
        self.server.freeze()
        super().begin(stuff)

    def happen(self) -> None:
        self.server.kill()
        self.server.start()


class DiskFull(Fault):
    how = "JetStream's store is on a tmpfs of 64 MiB, which another file fills: ENOSPC"
    mounts = True

    def start(self, stack: ExitStack) -> Server:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        _run("mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", folder)
        stack.callback(_run, "umount", "--lazy", folder)
        self.ballast = Path(folder, "ballast")
        # The server must not stop at a limit of its own before the disk is full.
        store = f'jetstream {{ store_dir: "{folder}/data", max_file: 1GB }}'
        return stack.enter_context(Server(config=store))

    def begin(self, stuff: Callable[[], Any]) -> None:
        with self.ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass

    def end(self) -> None:
        self.server.kill()  # some cannot end otherwise
        self.ballast.unlink()
        self.server.start()


FAULTS: dict[str, type[Fault]] = {
    "deaf port": DeafPort,
    "INFO never sent": NoInfo,
    "INFO broken off": HalfInfo,
    "CONNECT never answered": NoAnswerToConnect,
    "greeting one byte at a time": SlowGreeting,
    "DNS hangs": HangingLookup,
    "TLS handshake stalls": StalledHandshake,
    "frozen server": FrozenServer,
    "black hole": BlackHole,
    "one byte at a time": OneByteAtATime,
    "reset in mid-message": ResetInMidMessage,
    "full socket buffer": FullBuffer,
    "kill -9 and restart": KillAndRestart,
    "disk full": DiskFull,
}


def namespaced(command: list[str]) -> list[str]:
    """The command, with mounts that nobody else sees; it needs root, or user namespaces."""
    own_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", "--mount", *own_user, *command]


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
