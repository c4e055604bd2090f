"""Several nats-servers that are one cluster."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from types import TracebackType

from ._errors import ServerFailed
from ._server import Server, reserve_port

_PAUSE = 0.05


class Cluster:
    """A cluster of nats-servers with JetStream: streams have replicas, and leaders can die.

    ```python
    with Cluster() as cluster:
        client = natslease.Client(cluster.urls)
        cluster.servers[0].kill()
    ```

    Attributes:
        servers: its servers.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        config: str = "",
        binary: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Prepares a cluster; nothing is started yet.

        Args:
            size: how many servers; JetStream needs a majority of them.
            config: text that is added to the configuration of each server.
            binary: the nats-server program; left out, the one that ``find_server`` finds.
            timeout: how many seconds a server may take to start, and the cluster to agree on a
                leader.

        Raises:
            ServerNotFound: there is no nats-server binary.
        """
        self._timeout = timeout
        self._given_back = ExitStack()
        ports = [self._reserve() for _ in range(size)]
        routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in ports)
        self.servers: list[Server] = [
            Server(
                name=f"node-{number}",
                config=f""
                f"cluster {{ name: testing, listen: 127.0.0.1:{port}, routes: [{routes}] }}\n"
                f"{config}",
                binary=binary,
                timeout=timeout,
            )
            for number, port in enumerate(ports, start=1)
        ]
        for server in self.servers:
            self._given_back.callback(server.close)

    def _reserve(self) -> int:
        reservation: socket.socket = self._given_back.enter_context(reserve_port())
        return int(reservation.getsockname()[1])

    def __enter__(self) -> Cluster:
        """Starts all servers and waits until JetStream can be used."""
        try:
            for server in self.servers:
                server.start()
            self.wait()
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
        """Closes the cluster."""
        self.close()

    @property
    def urls(self) -> list[str]:
        """Where clients connect: one URL for each server."""
        return [server.url for server in self.servers]

    def wait(self) -> Server:
        """Waits until all running servers follow the same leader of JetStream; returns the leader.

        Raises:
            ServerFailed: they do not within the cluster's timeout.
        """
        deadline = time.monotonic() + self._timeout
        while True:
            if leader := self._leader():
                return leader
            if time.monotonic() > deadline:
                logs = "\n".join(server.log for server in self.servers)
                raise ServerFailed(f"no leader of JetStream within {self._timeout} s", logs)
            time.sleep(_PAUSE)

    def _leader(self) -> Server | None:
        """The server that all running ones follow and that reaches all of them."""
        running = [server for server in self.servers if server.is_running]
        views = [server.jsz().get("meta_cluster", {}) for server in running]
        names = {view.get("leader", "") for view in views}
        for server, view in zip(running, views, strict=True):
            replicas = sum(replica.get("current", False) for replica in view.get("replicas", ()))
            # Before it reaches a server it places no replicas there.
            if names == {server.name} and replicas + 1 >= len(running):
                return server
        return None

    def close(self) -> None:
        """Kills the servers and removes their data. It may be called twice."""
        self._given_back.close()
