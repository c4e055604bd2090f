"""The processes of the story: a database, and the web application under gunicorn."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

SITE = Path(__file__).resolve().parent.parent
PATIENCE = 60.0


class Unavailable(Exception):
    """What is needed is not on this machine; the text says what."""


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[Any], number: int = signal.SIGTERM, timeout: float = 5.0) -> None:
    """Ends a process of one's own."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_true(look: Callable[[], bool], process: subprocess.Popen[Any]) -> bool:
    """Looks until it is so; False when that takes too long, or the process ends."""
    until = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > until or process.poll() is not None:
            return False
        time.sleep(0.05)
    return True


class Postgres:
    """A PostgreSQL server in a temporary folder, with max_connections 100."""

    def __init__(self, *, durable: bool = False) -> None:
        """Creates the database and starts the server.

        Args:
            durable: whether a commit waits for the disk, as it does by default.

        Raises:
            Unavailable: initdb or postgres is not there.
        """
        self._durable = durable
        for program in ("initdb", "postgres"):
            if shutil.which(program) is None:
                raise Unavailable(f"PostgreSQL's {program} is not on PATH (Debian: postgresql)")
        # Neither runs as root.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        self.folder = Path(tempfile.mkdtemp(prefix="antenna-postgres-"))
        self.password = secrets.token_hex(8)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        word = self.folder / "password"
        word.write_text(self.password)
        if self._as:
            for path in (self.folder, word):
                shutil.chown(path, "nobody", "nogroup")
        data = self.folder / "data"
        done = subprocess.run(
            [
                *("initdb", "-D", data, "-U", "antenna", "-A", "scram-sha-256"),
                *(f"--pwfile={word}", "--no-sync", "-E", "UTF8", "--locale=C"),
            ],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            **self._as,
        )
        if done.returncode:
            raise Unavailable(f"initdb failed: {done.stderr.strip()[-500:]}")
        self.process = subprocess.Popen(
            [
                *("postgres", "-D", data, "-p", str(self.port), "-h", "127.0.0.1"),
                *("-k", self.folder, "-c", "max_connections=100"),
                *("-c", f"fsync={'on' if self._durable else 'off'}"),
            ],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as,
        )
        import psycopg

        def answers() -> bool:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        if not await_true(answers, self.process):
            raise Unavailable("postgres did not start")

    @property
    def url(self) -> str:
        """Where it is: the database postgres, as its owner."""
        return f"postgres://antenna:{self.password}@127.0.0.1:{self.port}/postgres"

    def close(self) -> None:
        """Ends it and removes its data."""
        if self.process is not None:
            end(self.process, signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Postgres:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Site:
    """The application: its database, its commands, and gunicorn with its workers."""

    def __init__(
        self, folder: Path, nats_url: str, python: str = sys.executable, **environment: str
    ) -> None:
        self.folder = folder
        self.python = python
        self.port = free_port()
        self.environment = {
            **os.environ,
            "ANTENNA_DATA": str(folder),
            "ANTENNA_BIND": f"127.0.0.1:{self.port}",
            "NATS_URL": nats_url,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(SITE), os.environ.get("PYTHONPATH")))),
            **environment,
        }
        self.environment.setdefault("DJANGO_SETTINGS_MODULE", "antenna.settings")
        self.web: subprocess.Popen[bytes] | None = None
        self.others: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """The API's."""
        return f"http://127.0.0.1:{self.port}/api/v2"

    def manage(self, *arguments: str) -> str:
        """Runs a command of Django, and returns what it printed."""
        done = subprocess.run(
            [self.python, SITE / "manage.py", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        if done.returncode:
            raise RuntimeError(f"{arguments[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def prepare(self, **seed: object) -> dict[str, Any]:
        """Makes the tables, and what there is to see; returns what ``seed`` tells."""
        self.manage("migrate", "--verbosity", "0")
        return self.seed(**seed)

    def seed(self, **seed: object) -> dict[str, Any]:
        """Runs ``seed``."""
        options = [f"--{name}={value}" for name, value in seed.items()]
        made: dict[str, Any] = json.loads(self.manage("seed", *options))
        return made

    def serve(self, application: str = "antenna.asgi:application") -> None:
        """Starts gunicorn, and returns when it answers."""
        command = [self.python, "-m", "gunicorn", "-c", str(SITE / "antenna" / "gunicorn.py")]
        self.web = self._start([*command, application], "web.log")
        if not await_true(self._answers, self.web):
            raise RuntimeError(f"gunicorn did not start:\n{self.log('web.log')}")

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/projects/", timeout=5)
        except urllib.error.HTTPError:
            return True  # it wants a token
        except OSError:
            return False
        return True

    def work(self, processes: int = 2) -> None:
        """Starts Celery's workers."""
        command = [self.python, "-m", "celery", "-A", "antenna", "worker", "-l", "INFO"]
        options = ["-c", str(processes), "--pool=prefork", "--without-gossip", "--without-mingle"]
        self.others.append(self._start([*command, *options], "celery.log"))

    def _start(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(
                command, env=self.environment, stdout=file, stderr=file, cwd=SITE
            )

    def log(self, name: str) -> str:
        """What a process has written."""
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Ends all of it."""
        for process in [*self.others, *([self.web] if self.web else [])]:
            end(process)

    def __enter__(self) -> Site:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
