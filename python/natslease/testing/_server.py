"""A real nats-server for a test."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from ._binary import find_server
from ._errors import ServerFailed, TestingError
from ._process import Process

_READY = "Server is ready"
_HOST = "127.0.0.1"


def reserve_port(port: int = 0) -> socket.socket:
    """Takes a port without listening: a server can listen on it, and nobody else gets it."""
    reservation = socket.socket()
    try:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind((_HOST, port))
    except OSError as error:
        reservation.close()
        raise TestingError(f"port {port} of {_HOST} cannot be used: {error}") from error
    return reservation


class Server:
    """A nats-server process with JetStream in a temporary directory, on a free port.

    ```python
    with Server() as server:
        client = natslease.Client(server.url)
    ```

    It ends with the ``with`` block, and at the latest with the process that started it, even when
    that is killed. The port stays its own until it is closed, also while it is down.

    Attributes:
        name: what the server calls itself; empty when it makes a name up.
        config: text that is added to the server's configuration file at the next start: users,
            permissions, limits, TLS. It wins over what this class writes, except that ``log_file``
            must not be set.
        binary: the nats-server program that the next start runs: an upgrade is to stop it, to set
            another, and to start it.
    """

    def __init__(
        self,
        *,
        name: str = "",
        config: str = "",
        jetstream: bool = True,
        port: int = 0,
        binary: str | os.PathLike[str] | None = None,
        timeout: float = 20.0,
    ) -> None:
        """Prepares a server; nothing is started yet.

        Args:
            name: what the server calls itself; left out, it makes a name up.
            config: text that is added to the server's configuration file.
            jetstream: whether JetStream is on.
            port: the port for clients; 0 stands for a free one.
            binary: the nats-server program; left out, the one that ``find_server`` finds.
            timeout: how many seconds the server may take to start, to stop and to answer.

        Raises:
            ServerNotFound: there is no nats-server binary.
            TestingError: the port cannot be used.
        """
        self.name = name
        self.config = config
        self.binary: Path = Path(binary).absolute() if binary is not None else find_server()
        self._jetstream = jetstream
        self._timeout = timeout
        self._parts = _Parts(reserve_port(port), reserve_port())
        self._close = weakref.finalize(self, self._parts.close)

    def __enter__(self) -> Server:
        """Starts the server unless it runs."""
        if not self.is_running:
            try:
                self.start()
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
        """Closes the server."""
        self.close()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.is_running else "not running"
        return f"<natslease.testing.Server {self.url} {state}>"

    @property
    def host(self) -> str:
        """The address that the server listens on."""
        return _HOST

    @property
    def port(self) -> int:
        """The port for clients."""
        return self._parts.port

    @property
    def url(self) -> str:
        """Where clients connect: ``nats://host:port``, without a user."""
        return f"nats://{self.host}:{self.port}"

    @property
    def monitor_url(self) -> str:
        """Its monitoring port, ``http://host:port``: for Prometheus, or a doctor's ``monitor``."""
        return f"http://{self.host}:{self._parts.web_port}"

    @property
    def directory(self) -> Path:
        """The temporary directory with the configuration (``nats.conf``) and the ``data``."""
        return self._parts.directory

    @property
    def is_running(self) -> bool:
        """Whether the process is there; a frozen one is."""
        process = self._parts.process
        return process is not None and process.is_running

    @property
    def pid(self) -> int:
        """The id of the server's process.

        Raises:
            TestingError: the server is not running.
        """
        return self._process().pid

    @property
    def log(self) -> str:
        """What the server has written since its last start."""
        process = self._parts.process
        return process.log if process is not None else ""

    def start(self) -> None:
        """Starts the server, on the same port with the same data, and returns when it is ready.

        Raises:
            ServerFailed: it ended at once, or was not ready in time.
            TestingError: it is running, or closed, or its program cannot be started.
        """
        if self.is_running:
            raise TestingError("the server is running")
        if not self._close.alive:
            raise TestingError("the server is closed")
        path = self.directory / "nats.conf"
        path.write_text(self._configuration())
        process = Process(self.binary, ["-c", str(path)], _READY)
        self._parts.process = process
        process.start()
        in_time = process.ready.wait(self._timeout)
        if process.is_running and in_time:
            return
        if process.is_running:
            process.end(signal.SIGKILL, self._timeout)
            raise ServerFailed(f"{self.binary} was not ready within {self._timeout} s", self.log)
        raise ServerFailed(f"{self.binary} ended at once", self.log)

    def stop(self) -> None:
        """Ends the server with SIGTERM and returns when it is gone. Its data are kept.

        Raises:
            ServerFailed: it does not end.
        """
        process = self._parts.process
        if process is not None and process.is_running:
            # A stopped process would get the signal only when it goes on.
            process.send(signal.SIGCONT)
            process.end(signal.SIGTERM, self._timeout)

    def kill(self) -> None:
        """Ends the server with SIGKILL and returns when it is gone. Its data are kept as they are.

        Raises:
            ServerFailed: it does not end.
        """
        process = self._parts.process
        if process is not None and process.is_running:
            process.end(signal.SIGKILL, self._timeout)

    def restart(self) -> None:
        """Stops the server, if it runs, and starts it on the same port with its data.

        Raises:
            ServerFailed: it does not end, or does not start.
        """
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stops the process (SIGSTOP): its port accepts, connections stand, and it says nothing.

        Raises:
            TestingError: the server is not running, or was started by another process.
        """
        self._process().freeze()

    def thaw(self) -> None:
        """Lets a frozen server go on (SIGCONT).

        Raises:
            TestingError: the server is not running.
        """
        self._process().send(signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freezes the server for the length of a ``with`` block."""
        self.freeze()
        try:
            yield
        finally:
            if self.is_running:
                self.thaw()

    def lame_duck(self) -> None:
        """Announces the end to the clients; the end comes later (2 minutes, if not configured).

        Raises:
            TestingError: the server is not running.
        """
        self._process().send(signal.SIGUSR2)

    def varz(self) -> dict[str, Any]:
        """The server's figures: ``connections``, ``total_connections``, ``slow_consumers``, ...

        Raises:
            ServerFailed: it does not answer.
        """
        return self.monitor("varz")

    def connz(self, **options: object) -> dict[str, Any]:
        """Its connections: ``num_connections``, and in ``connections`` each one's ``name``, ...

        Args:
            options: options of the page, such as ``state="any"``, ``subs=True``, ``limit=1000``.

        Raises:
            ServerFailed: it does not answer.
        """
        return self.monitor("connz", **options)

    def jsz(self, **options: object) -> dict[str, Any]:
        """JetStream's figures: ``streams``, ``consumers``, ``messages``, ``api``, ...

        Args:
            options: options of the page, such as ``consumers=True``, ``config=True``.

        Raises:
            ServerFailed: it does not answer.
        """
        return self.monitor("jsz", **options)

    def monitor(self, page: str, **options: object) -> dict[str, Any]:
        """A page of the server's monitoring port.

        Args:
            page: its name, such as ``"subsz"``.
            options: its options; True and False become ``true`` and ``false``.

        Raises:
            ServerFailed: the server does not answer within the server's timeout.
        """
        query = urlencode(
            {key: str(v).lower() if isinstance(v, bool) else v for key, v in options.items()}
        )
        connection = http.client.HTTPConnection(_HOST, self._parts.web_port, timeout=self._timeout)
        try:
            connection.request("GET", f"/{page}?{query}")
            response = connection.getresponse()
            body = response.read()
            if response.status != http.HTTPStatus.OK:
                raise ServerFailed(f"{page}: {response.status} {body.decode(errors='replace')}")
            answer: dict[str, Any] = json.loads(body)
            return answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServerFailed(f"{page} was not answered: {error!r}", self.log) from error
        finally:
            connection.close()

    def close(self) -> None:
        """Kills the server, if it runs, and removes its data. It may be called twice."""
        self._close()

    def _process(self) -> Process:
        process = self._parts.process
        if process is None or not process.is_running:
            raise TestingError("the server is not running")
        return process

    def _configuration(self) -> str:
        lines = [f"server_name: {json.dumps(self.name)}"] if self.name else []
        lines += [
            f"host: {_HOST}",
            f"port: {self.port}",
            f'http: "{_HOST}:{self._parts.web_port}"',
        ]
        if self._jetstream:
            lines.append(f"jetstream {{ store_dir: {json.dumps(str(self.directory / 'data'))} }}")
        return "\n".join([*lines, self.config, ""])


class _Parts:
    """What has to be given back, also when the Server is forgotten."""

    def __init__(self, *reservations: socket.socket) -> None:
        self.owner = os.getpid()
        self.reservations = reservations
        self.port, self.web_port = (int(r.getsockname()[1]) for r in reservations)
        self.directory = Path(tempfile.mkdtemp(prefix="natslease-"))
        self.process: Process | None = None

    def close(self) -> None:
        for reservation in self.reservations:
            reservation.close()
        if os.getpid() != self.owner:
            return  # a forked process: the server is its parent's
        try:
            if self.process is not None and self.process.is_running:
                self.process.end(signal.SIGKILL, timeout=10.0)
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
