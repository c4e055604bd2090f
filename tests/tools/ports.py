"""Ports that do not behave as a server's do."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

INFO = b'INFO {"server_id":"x","version":"2.15.2","max_payload":1048576,"headers":true}\r\n'
TLS_INFO = INFO.replace(b'"headers"', b'"tls_required":true,"headers"')


@contextmanager
def silent_port(*, sends: bytes = b"", accepts: bool = True) -> Iterator[str]:
    """A port that says at most one thing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        connections: list[socket.socket] = []

        def serve() -> None:
            while accepts:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections[:] = [c for c in connections if not _has_left(c)]
                connections.append(connection)
                connection.sendall(sends)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"nats://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                connection.close()


def _has_left(connection: socket.socket) -> bool:
    """Whether the other side has closed it; then it is closed here, too."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    if left := bool(poll.poll(0)):
        connection.close()
    return left


@contextmanager
def deaf_port() -> Iterator[str]:
    """A port whose queue of connections to be accepted is full: SYNs are not answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        address = listener.getsockname()
        while True:
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
            if not select.select([], [filler], [], 0.2)[1]:
                break
        yield f"nats://127.0.0.1:{address[1]}"
