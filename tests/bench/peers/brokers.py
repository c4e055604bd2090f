"""The servers, each with its settings for what survives it, and how they are frozen."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType

from natslease.testing import Server
from replay.services import Postgres, Unavailable, await_true, end, free_port

__all__ = ["KINDS", "Brokers", "Unavailable", "descendants"]

# What each has of a task when it says that it has it.
KINDS = {
    "nats": "JetStream, file storage: to disk every 2 minutes, as by default",
    "nats, fsync": "JetStream, file storage, sync_interval: always: to disk before it answers",
    "redis": "Redis, appendonly yes, appendfsync everysec: to disk every second",
    "postgres": "PostgreSQL, defaults: to disk before it answers",
}


class _Redis:
    """A Redis that keeps what it has."""

    def __init__(self) -> None:
        if shutil.which("redis-server") is None:
            raise Unavailable("redis-server is not on PATH (Debian: redis-server)")
        self._folder = Path(tempfile.mkdtemp(prefix="peers-redis-"))
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}"
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--databases", "1024", "--dir", str(self._folder)]
        options = ["--appendonly", "yes", "--appendfsync", "everysec"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        try:
            if not await_true(self._answers, self.process):
                raise Unavailable("redis-server did not start")
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        import redis

        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def close(self) -> None:
        end(self.process)
        shutil.rmtree(self._folder, ignore_errors=True)


class Brokers:
    """The servers of a run, by the kinds that rows name."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self._urls: dict[str, str] = {}
        self._processes: dict[str, int] = {}
        self._databases = count()
        self._stack = ExitStack()

    def __enter__(self) -> Brokers:
        with self._stack as stack:
            for kind in KINDS:
                self._start(kind, stack)
            self._stack = stack.pop_all()
        return self

    def _start(self, kind: str, stack: ExitStack) -> None:
        try:
            self._urls[kind], self._processes[kind] = _STARTS[kind](stack)
        except Unavailable as error:
            self.missing[kind] = str(error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def url(self, kind: str) -> str:
        """Of a server; of Redis, each time a database that nobody has used."""
        url = self._urls[kind]
        return f"{url}/{next(self._databases)}" if kind == "redis" else url

    def refusing(self, kind: str, port: int) -> str:
        """As if that server were on this port."""
        return re.sub(r":\d+(?=/|$)", f":{port}", self._urls[kind])

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All of them stand still meanwhile, with all their processes."""
        stopped = [p for pid in self._processes.values() for p in [pid, *descendants(pid)]]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)


def _start_nats(stack: ExitStack) -> tuple[str, int]:
    server = stack.enter_context(Server())
    return server.url, server.pid


def _start_nats_fsync(stack: ExitStack) -> tuple[str, int]:
    server = Server()
    store = json.dumps(str(server.directory / "data"))
    server.config = f"jetstream {{ store_dir: {store}, sync_interval: always }}"
    stack.enter_context(server)
    return server.url, server.pid


def _start_redis(stack: ExitStack) -> tuple[str, int]:
    redis = _Redis()
    stack.callback(redis.close)
    return redis.url, redis.process.pid


def _start_postgres(stack: ExitStack) -> tuple[str, int]:
    import procrastinate

    postgres = stack.enter_context(Postgres(durable=True))
    connector = procrastinate.SyncPsycopgConnector(conninfo=postgres.url)
    with procrastinate.App(connector=connector).open() as app:
        app.schema_manager.apply_schema()
    return postgres.url, postgres.process.pid


_STARTS: dict[str, Callable[[ExitStack], tuple[str, int]]] = {
    "nats": _start_nats,
    "nats, fsync": _start_nats_fsync,
    "redis": _start_redis,
    "postgres": _start_postgres,
}


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found
