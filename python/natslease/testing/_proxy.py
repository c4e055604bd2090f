"""A way to a server that fails on command."""

from __future__ import annotations

import contextlib
import enum
import os
import selectors
import socket
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable
from threading import Event, Lock, Thread
from types import TracebackType
from urllib.parse import urlsplit

from ._errors import TestingError

_CHUNK = 65536
_CONNECT_TIMEOUT = 5.0


class Direction(enum.Enum):
    """A way through a Proxy."""

    FROM_CLIENT = "from client"
    FROM_SERVER = "from server"


class _Mode(enum.Enum):
    PASS = enum.auto()
    STALL = enum.auto()
    SWALLOW = enum.auto()


class Proxy:
    """Stands between clients and a server, and breaks their connections on command.

    ```python
    with Server() as server, Proxy(server.url) as proxy:
        client = natslease.Client(proxy.url)
        client.ping()
        proxy.stall()
        with pytest.raises(natslease.Unavailable):
            client.ping(timeout=2.0)
    ```

    What is commanded holds for all connections, those to come included, until ``restore()``; it is
    in force when the method returns.
    """

    def __init__(self, target: str) -> None:
        """Listens on a free port of 127.0.0.1.

        Args:
            target: where to forward to: ``nats://host:port`` or ``host:port``.

        Raises:
            ValueError: the target has no host or no port.
        """
        parts = urlsplit(target if "//" in target else f"//{target}")
        if not parts.hostname or not parts.port:
            raise ValueError(f"target must be nats://host:port, not {target!r}")
        self._loop = _Loop((parts.hostname, parts.port))
        self._close = weakref.finalize(self, self._loop.close)

    def __enter__(self) -> Proxy:
        """The proxy listens from its making on."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the proxy."""
        self.close()

    def __repr__(self) -> str:
        return (
            f"<natslease.testing.Proxy {self.address} to {':'.join(map(str, self._loop.target))}>"
        )

    @property
    def address(self) -> str:
        """Where it listens: ``host:port``."""
        return ":".join(map(str, self._loop.address))

    @property
    def url(self) -> str:
        """Where clients connect: ``nats://host:port``."""
        return f"nats://{self.address}"

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._loop.links)

    @property
    def total_connections(self) -> int:
        """How many connections there have been."""
        return self._loop.total

    def stall(self, direction: Direction | None = None) -> None:
        """Stops reading: nothing passes, nothing is closed, and the sender's socket buffer fills
        up.

        Args:
            direction: the way that stalls; left out, both.
        """
        self._set_mode(direction, _Mode.STALL)

    def black_hole(self, direction: Direction | None = None) -> None:
        """Reads and throws away: the sender can go on writing, and nothing arrives.

        Args:
            direction: the way that loses everything; left out, both.
        """
        self._set_mode(direction, _Mode.SWALLOW)

    def trickle(self, interval: float = 0.1, direction: Direction | None = None) -> None:
        """Lets one byte pass at a time.

        Args:
            interval: seconds between the bytes.
            direction: the way that is slow; left out, both.

        Raises:
            ValueError: the interval is not positive.
        """
        if not interval > 0:
            raise ValueError(f"interval must be positive, not {interval}")
        self._loop.command(lambda: self._loop.set_interval(_ways(direction), interval))

    def restore(self) -> None:
        """Lets everything pass again. Connections that have lost bytes are reset."""
        self._loop.command(self._loop.restore)

    def cut(self) -> None:
        """Resets every connection (RST, as when the other machine has forgotten it). New ones are
        welcome.
        """
        self._loop.command(self._loop.cut)

    def close(self) -> None:
        """Ends the proxy and resets its connections. It may be called twice."""
        self._close()

    def _set_mode(self, direction: Direction | None, mode: _Mode) -> None:
        self._loop.command(lambda: self._loop.set_mode(_ways(direction), mode))


def _ways(direction: Direction | None) -> tuple[Direction, ...]:
    return (direction,) if direction is not None else tuple(Direction)


class _Way:
    """What happens to the bytes of one direction, of all connections."""

    def __init__(self) -> None:
        self.mode = _Mode.PASS
        self.interval = 0.0  # > 0: seconds for each byte


class _Pipe:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, way: _Way) -> None:
        self.source = source
        self.sink = sink
        self.way = way
        self.buffer = bytearray()
        self.next_byte = 0.0
        self.lost = False

    def wants_to_read(self) -> bool:
        return self.way.mode is _Mode.SWALLOW or (self.way.mode is _Mode.PASS and not self.buffer)

    def waits(self, now: float) -> float:
        """Seconds until it may write; infinite when only an event can change that."""
        if not self.buffer or self.way.mode is not _Mode.PASS:
            return float("inf")
        return max(0.0, self.next_byte - now) if self.way.interval else 0.0

    def read(self) -> None:
        """Takes what there is.

        Raises:
            OSError: the connection has ended.
        """
        data = self.source.recv(_CHUNK)
        if not data:
            raise ConnectionResetError("the end of the connection")
        if self.way.mode is _Mode.SWALLOW:
            self.lost = True
        else:
            self.buffer += data

    def write(self, now: float) -> None:
        """Lets pass what may pass.

        Raises:
            OSError: the connection has ended.
        """
        if self.way.interval:
            self.next_byte = now + self.way.interval
        sent = self.sink.send(self.buffer[:1] if self.way.interval else self.buffer)
        del self.buffer[:sent]


class _Link:
    """One client's connection with its counterpart."""

    def __init__(
        self, client: socket.socket, server: socket.socket, ways: dict[Direction, _Way]
    ) -> None:
        self.sockets = (client, server)
        self.pipes = (
            _Pipe(client, server, ways[Direction.FROM_CLIENT]),
            _Pipe(server, client, ways[Direction.FROM_SERVER]),
        )

    def close(self, *, reset: bool) -> None:
        for end in self.sockets:
            if reset:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()


class _Loop:
    """The thread that moves the bytes. It alone changes what follows; others give it commands."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.ways = {direction: _Way() for direction in Direction}
        self.links: set[_Link] = set()
        self.total = 0
        self._owner = os.getpid()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._bell, self._ear = socket.socketpair()
        self._commands: deque[tuple[Callable[[], None], Event]] = deque()
        self._lock = Lock()  # of closed, against commands that nobody would carry out
        self._closed = False
        self._thread = Thread(target=self._run, name=f"proxy {self.address[1]}", daemon=True)
        self._thread.start()

    def command(self, act: Callable[[], None]) -> None:
        """Has the thread carry something out, and returns when it has.

        Raises:
            TestingError: the proxy is closed, or belongs to the process that this one was forked
                from.
        """
        done = Event()
        with self._lock:
            if self._closed or os.getpid() != self._owner:
                raise TestingError("the proxy is closed, or belongs to another process")
            self._commands.append((act, done))
            self._bell.send(b"!")
        done.wait()

    def close(self) -> None:
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._bell.send(b"!")
        self._thread.join()
        # Here, not in the thread: it may see that it is to end before the bell has rung.
        self._bell.close()
        self._ear.close()

    def set_mode(self, ways: tuple[Direction, ...], mode: _Mode) -> None:
        for direction in ways:
            self.ways[direction].mode = mode

    def set_interval(self, ways: tuple[Direction, ...], interval: float) -> None:
        for direction in ways:
            self.ways[direction].interval = interval

    def restore(self) -> None:
        for way in self.ways.values():
            way.mode, way.interval = _Mode.PASS, 0.0
        for link in [link for link in self.links if any(pipe.lost for pipe in link.pipes)]:
            self._drop(link, reset=True)

    def cut(self) -> None:
        for link in tuple(self.links):
            self._drop(link, reset=True)

    def _drop(self, link: _Link, *, reset: bool) -> None:
        self.links.discard(link)
        link.close(reset=reset)

    def _run(self) -> None:
        while not self._closed:
            self._turn()
        self.cut()
        self._listener.close()
        while self._commands:
            self._obey()

    def _turn(self) -> None:
        """Waits for something to do, and does it. The number of connections in a test is small."""
        readers: dict[object, tuple[_Link, _Pipe]] = {}
        writers: dict[object, tuple[_Link, _Pipe]] = {}
        now, pause = time.monotonic(), float("inf")
        for link in self.links:
            for pipe in link.pipes:
                wait = pipe.waits(now)
                if wait == 0.0:
                    writers[pipe.sink] = link, pipe
                pause = min(pause, wait or float("inf"))
                if pipe.wants_to_read():
                    readers[pipe.source] = link, pipe
        with selectors.DefaultSelector() as selector:
            selector.register(self._ear, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            for link in self.links:
                for side in link.sockets:
                    mask = selectors.EVENT_READ * (side in readers)
                    mask |= selectors.EVENT_WRITE * (side in writers)
                    if mask:
                        selector.register(side, mask)
            events = selector.select(None if pause == float("inf") else pause)
        for key, mask in events:
            end = key.fileobj
            if end is self._listener:
                self._accept()
                continue
            if mask & selectors.EVENT_READ and end in readers:
                self._move(*readers[end], reading=True)
            if mask & selectors.EVENT_WRITE and end in writers:
                self._move(*writers[end], reading=False)
        # Last: what the events were about may be gone after it.
        if any(key.fileobj is self._ear for key, _ in events):
            self._ear.recv(_CHUNK)
            while self._commands:
                self._obey()

    def _move(self, link: _Link, pipe: _Pipe, *, reading: bool) -> None:
        if link not in self.links:
            return
        try:
            if reading:
                pipe.read()
            else:
                pipe.write(time.monotonic())
        except BlockingIOError:
            pass
        except OSError:
            # One way's end is both ways' end: NATS has no half-closed connections.
            self._drop(link, reset=False)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        try:
            server = socket.create_connection(self.target, timeout=_CONNECT_TIMEOUT)
        except OSError:
            client.close()  # as a server that is down would
            return
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.links.add(_Link(client, server, self.ways))
        self.total += 1

    def _obey(self) -> None:
        act, done = self._commands.popleft()
        act()
        done.set()
