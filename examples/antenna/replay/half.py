"""One half of the story: the site as it was, or as it is, through the same events."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import natslease
from natslease.testing import Server

from .services import SITE, Postgres, Site, end

STALE_JOB = 1365
NEW_JOB = 1366
STALE_TASKS = 1000
NEW_TASKS = 20
POLLERS = 16
BATCH = 16
TASKS = "jobs/{job}/tasks/"  # what is polled
ON_ITS_WAY = 15.0  # seconds: longer than any request of the half "after" lasts
RATE = 10  # looks at the unrelated endpoint, a second
TIMEOUTS = (5.0, 30.0)  # of the two workers' HTTP clients, in seconds
SLOW_STOP, SLOW_GO = 0.2, 0.02  # a slow server stands still most of the time


@dataclass(frozen=True)
class Lengths:
    """How long each part takes, in seconds."""

    healthy: float
    frozen: float
    killed: float
    slow: float
    back: float  # after each of them


FULL = Lengths(healthy=8, frozen=20, killed=50, slow=8, back=12)
SHORT = Lengths(healthy=6, frozen=12, killed=12, slow=6, back=8)
SMOKE = Lengths(healthy=2, frozen=4, killed=4, slow=2, back=4)


@dataclass
class Half:
    """What was seen.

    Attributes:
        phases: name, beginning and end of each, in seconds since the beginning.
        monitor, polls: the requests, with ``at`` in seconds since the beginning.
        samples: threads, database connections and stalls, over time.
    """

    name: str
    database: str
    phases: list[tuple[str, float, float]] = field(default_factory=list)
    monitor: list[dict[str, Any]] = field(default_factory=list)
    polls: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    stalls: list[dict[str, Any]] = field(default_factory=list)
    nats_connections: int = 0
    stranded: dict[str, int] = field(default_factory=dict)
    new_worker_got: int = 0
    new_tasks: int = NEW_TASKS


class Story:
    """Runs a half."""

    def __init__(
        self,
        name: str,
        lengths: Lengths,
        say: Callable[[str], None],
        postgres: bool,
        python: str = sys.executable,
    ) -> None:
        self.half = Half(name, "PostgreSQL, max_connections 100" if postgres else "SQLite")
        self.lengths = lengths
        self.say = say
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.plan: dict[str, Any] = {"jobs": [STALE_JOB], "stop": False, "path": TASKS}
        self.published: dict[int, set[str]] = {STALE_JOB: set(), NEW_JOB: set()}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.began = 0.0
        self._connections = 0
        self._watching = threading.Event()
        self._postgres_url = ""
        if postgres:
            self._postgres_url = self.stack.enter_context(Postgres()).url
        self.server = self.stack.enter_context(Server())
        environment = {
            "DJANGO_SETTINGS_MODULE": f"replay.settings_{name}",
            "ANTENNA_DATABASE_URL": self._postgres_url,
            "ANTENNA_LOG_LEVEL": "ERROR",
            "NATS_MAX_ACK_PENDING": "10000",
        }
        self.site = self.stack.enter_context(
            Site(self.folder, self.server.url, python, **environment)
        )

    def run(self) -> Half:
        """All of it."""
        with self.stack:
            try:
                self._run()
            finally:
                self._watching.set()
                self.plan["stop"] = True
                self._write_plan()
                for process in self.processes:
                    end(process, timeout=1.0)
        return self.half

    def _run(self) -> None:
        self.say("starting the database and gunicorn with 2 uvicorn workers")
        self.made = self.site.prepare(images=STALE_TASKS, job=STALE_JOB, status="STARTED")
        self.site.serve("replay.asgi:application")
        self._publish(STALE_JOB, STALE_TASKS)
        self.began = time.time()
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        self._write_plan()
        self._tell()
        self._watching.set()
        watcher.join(5)
        self.plan["stop"] = True
        self._write_plan()
        self._check()
        self._gather()

    def _tell(self) -> None:
        """The events."""
        self._start("monitor", role="monitor", rate=RATE)
        for slot, timeout in enumerate(TIMEOUTS):
            self._worker(f"old {slot}", slot, timeout=timeout)
        self._phase("healthy", self.lengths.healthy)
        self._outage("frozen", self.server.freeze, self._thaw)
        self._slow()
        self._outage("killed", self._kill, self.server.start)
        self._new_job()
        self._count_connections()

    # What happens.

    def _phase(self, name: str, seconds: float, until: Callable[[], bool] | None = None) -> None:
        begin = time.time()
        self.half.phases.append((name, begin - self.began, begin + seconds - self.began))
        while (left := begin + seconds - time.time()) > 0:
            self.say(f"{name}, {left:.0f} s more: {self._glance()}")
            if until is not None and until():
                break
            time.sleep(min(left, 0.5))
        self.half.phases[-1] = (name, begin - self.began, time.time() - self.began)

    def _outage(self, name: str, begin: Callable[[], None], finish: Callable[[], None]) -> None:
        self._publish(STALE_JOB, STALE_TASKS)
        time.sleep(0.5)
        self._count_connections()
        begin()
        self._phase(name, getattr(self.lengths, name))
        finish()
        self._phase(f"after {name}", self.lengths.back)
        # Those of the outages before are counted there.
        before = sum(self.half.stranded.values())
        # What is on its way to a poller at this moment arrives; what is stranded does not.
        until = time.monotonic() + ON_ITS_WAY
        while (stranded := self._stranded(STALE_JOB) - before) > 0 and time.monotonic() < until:
            time.sleep(0.5)
        self.half.stranded[name] = max(stranded, 0)

    def _slow(self) -> None:
        stop = threading.Event()

        def stumble() -> None:
            while not stop.is_set():
                self.server.freeze()
                time.sleep(SLOW_STOP)
                self.server.thaw()
                time.sleep(SLOW_GO)

        thread = threading.Thread(target=stumble)
        thread.start()
        try:
            self._phase("slow", self.lengths.slow)
        finally:
            stop.set()
            thread.join()
        self._phase("after slow", self.lengths.back / 2)

    def _thaw(self) -> None:
        self.server.thaw()

    def _kill(self) -> None:
        self.server.kill()
        self._connections_before_kill()

    def _new_job(self) -> None:
        """A new run of the worker is started, and a new job with it. The old one is still there."""
        for slot, timeout in enumerate(TIMEOUTS):
            self._worker(f"new {slot}", slot, timeout=timeout, boot=2.0)
        if self.half.name == "after":
            self._await_registered()
        self.site.seed(images=NEW_TASKS, job=NEW_JOB, status="STARTED")
        self._publish(NEW_JOB, NEW_TASKS)
        self.plan["jobs"] = [STALE_JOB, NEW_JOB]
        self._write_plan()

        def all_taken() -> bool:
            return len(self._read_ids(NEW_JOB)) >= NEW_TASKS

        self._phase("new job", 15.0, all_taken)
        self.half.new_worker_got = len(self._read_ids(NEW_JOB, "new"))

    def _await_registered(self) -> None:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if sum(1 for p in self._lines("new *.jsonl") if p) or self._fenced():
                return
            time.sleep(0.05)

    def _fenced(self) -> bool:
        return any(poll["status"] == "409" for poll in self._lines("old *.jsonl"))

    # Those who take part.

    def _worker(
        self, name: str, slot: int, *, timeout: float, boot: float = 0.0, pollers: int = POLLERS
    ) -> None:
        self._start(
            name,
            role="worker",
            slot=slot,
            timeout=timeout,
            boot=boot,
            pollers=pollers,
            batch=BATCH,
            registers=self.half.name == "after",
        )

    def _start(self, name: str, **options: Any) -> None:
        told = {
            "name": name,
            "plan": str(self.folder / "plan.json"),
            "journal": str(self.folder / f"{name}.jsonl"),
            "url": self.site.url,
            "token": self.made["token"],
            **options,
        }
        command = [sys.executable, "-m", "replay.load", json.dumps(told)]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=SITE, stdout=log, stderr=log)
        self.processes.append(process)

    def _check(self) -> None:
        """Whoever took part must not have failed: there would be nothing to see."""
        for process in self.processes:
            if process.poll():
                logs = "".join(p.read_text()[-2000:] for p in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"{process.args!r} failed:\n{logs}")

    def _write_plan(self) -> None:
        path = self.folder / "plan.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps(self.plan))
        new.replace(path)

    # Tasks.

    def _queue(self, client: natslease.Client, job: int) -> natslease.Queue:
        return client.queue(
            f"job_{job}",
            subject=f"job.{job}.tasks",
            consumer=f"job-{job}-consumer",
            retention="limits",
            ack_wait=300,
            max_deliver=2,
            max_ack_pending=10_000,
        )

    def _publish(self, job: int, n: int) -> None:
        with natslease.Client(self.server.url, timeout=10.0, name="the story") as client:
            queue = self._queue(client, job)
            queue.ensure()
            first = len(self.published[job])
            ids = [f"{job}-{i}" for i in range(first, first + n)]
            tasks = [json.dumps({"id": i, "image_id": i, "image_url": "https://x"}) for i in ids]
            report = queue.publish([t.encode() for t in tasks])
            assert len(report.accepted) == n, report
            self.published[job].update(ids)

    def _stranded(self, job: int) -> int:
        """How many tasks were given out, and read by nobody."""
        with natslease.Client(self.server.url, timeout=10.0, name="the story") as client:
            waiting = self._queue(client, job).info().num_pending
        return len(self.published[job]) - waiting - len(self._read_ids(job))

    def _read_ids(self, job: int, worker: str = "") -> set[str]:
        polls = [*self._lines("old *.jsonl"), *self._lines("new *.jsonl")]
        return {
            task
            for poll in polls
            if poll["job"] == job and poll["worker"].startswith(worker)
            for task in poll["ids"]
        }

    # Looking.

    def _lines(self, pattern: str) -> list[dict[str, Any]]:
        found = []
        for path in sorted(self.folder.glob(pattern)):
            lines = path.read_text().splitlines()
            # The last may be half written.
            found += [json.loads(line) for line in lines if line.endswith("}")]
        return found

    def _glance(self) -> str:
        sample = self.half.samples[-1] if self.half.samples else {}
        words = [f"{sample.get('threads', 0)} threads"]
        words.append(f"{sample.get('database', 0)} database connections")
        return ", ".join(words)

    def _watch(self) -> None:
        connection = None
        if self._postgres_url:
            import psycopg

            connection = psycopg.connect(self._postgres_url, autocommit=True)
        while not self._watching.wait(0.25):
            pids = self._web_pids()
            sample = {
                "at": time.time() - self.began,
                "threads": sum(_threads(pid) for pid in pids),
            }
            if connection is not None:
                row = connection.execute(
                    "SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in transaction%')"
                    " FROM pg_stat_activity WHERE backend_type = 'client backend'"
                    " AND pid <> pg_backend_pid()"
                ).fetchone()
                assert row is not None
                sample["database"], sample["in_transaction"] = row
            else:
                sample["database"] = sum(_open_databases(pid) for pid in pids)
            self.half.samples.append(sample)
        if connection is not None:
            connection.close()

    def _web_pids(self) -> list[int]:
        assert self.site.web is not None
        path = Path(f"/proc/{self.site.web.pid}/task/{self.site.web.pid}/children")
        try:
            return [int(pid) for pid in path.read_text().split()]
        except OSError:
            return []

    def _count_connections(self) -> None:
        """Takes note of how many connections the server has had: a new process counts anew."""
        self._connections = int(self.server.varz()["total_connections"])
        self.half.nats_connections = self._connections_past + self._connections

    _connections_past = 0

    def _connections_before_kill(self) -> None:
        self._connections_past += self._connections
        self._connections = 0

    def _gather(self) -> None:
        half = self.half
        for poll in [*self._lines("old *.jsonl"), *self._lines("new *.jsonl")]:
            half.polls.append({**poll, "at": poll["at"] - self.began, "ids": len(poll["ids"])})
        for look in self._lines("monitor.jsonl"):
            half.monitor.append({**look, "at": look["at"] - self.began})
        for line in self._lines("probe-*.jsonl"):
            half.stalls.append({**line, "at": line["at"] - self.began})


def _threads(pid: int) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return 0


def _open_databases(pid: int) -> int:
    """Connections to SQLite: each has the file open."""
    n = 0
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            n += str(entry.readlink()).endswith("antenna.sqlite3")
    except OSError:
        pass
    return n
