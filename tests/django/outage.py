"""What queue views answer and hold during an outage, with pollers at the site under gunicorn.

``make outage`` runs it for both kinds of servers, NATS frozen and killed, 16 and 32 pollers, and
puts its table into docs/howto/django.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
import urllib.error
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests" / "tools"), str(ROOT / "examples" / "antenna")]

import natslease  # noqa: E402
from natslease.testing import Server  # noqa: E402
from program import await_that  # noqa: E402
from replay.__main__ import machine  # noqa: E402
from replay.figures import insert, quantile  # noqa: E402
from replay.services import Postgres  # noqa: E402
from webserver import KINDS, TASKS, Site, serving  # noqa: E402

PAGE = ROOT / "docs" / "howto" / "django.md"
FAULTS = ("frozen", "killed")
WAIT = 0.5
STUB = "/plain/stub/"
UNRELATED = "/unrelated/"
# Half of the pollers give up after the one, half after the other.
CLIENT_TIMEOUTS = (5.0, 30.0)
# The codes of answers that have waited for nothing.
AT_ONCE = ("circuit_open", "busy")


class Poll(NamedTuple):
    """A request, and its answer; the status is 0 where the client has given up."""

    path: str
    began: float
    seconds: float
    status: int
    code: str
    retry_after: str

    @property
    def ended(self) -> float:
        return self.began + self.seconds


class Pollers:
    """Threads that ask in turns for tasks and for the stub, and one that asks for something else:
    both controls have the same load."""

    def __init__(self, site: Site, kind: str, n: int, pause: float) -> None:
        self._site = site
        self._pause = pause
        self._queue = [f"{TASKS}?wait={WAIT}&batch=5"]
        if kind == "ASGI":
            self._queue.append(f"/plain/async/?wait={WAIT}")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._poll, args=(i,)) for i in range(n)]
        self._threads.append(threading.Thread(target=self._look))
        self.polls: list[Poll] = []

    def _poll(self, i: int) -> None:
        timeout = CLIENT_TIMEOUTS[i % len(CLIENT_TIMEOUTS)]
        paths = [path for asked in self._queue for path in (asked, STUB)]
        self._ask_in_turns(paths[i % len(paths) :] + paths[: i % len(paths)], timeout)

    def _look(self) -> None:
        self._ask_in_turns([UNRELATED], 60.0)

    def _ask_in_turns(self, paths: list[str], timeout: float) -> None:
        for path in itertools.cycle(paths):
            if self._stop.wait(self._pause):
                return
            began = time.monotonic()
            try:
                answer = self._site.get(path, timeout)
            except (OSError, urllib.error.URLError):
                self.polls.append(Poll(path, began, time.monotonic() - began, 0, "", ""))
                continue
            code = answer.json.get("code", "")
            after = answer.headers.get("Retry-After", "")
            self.polls.append(Poll(path, began, answer.seconds, answer.status, code, after))

    def __enter__(self) -> Pollers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


class Watcher:
    """Looks, many times a second, how many connections PostgreSQL has for views that wait for NATS
    (see ``testsite.watch``), and how many it has at all."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.looks = self.most = self.most_of_all = 0

    def _watch(self) -> None:
        import psycopg

        with psycopg.connect(self._url, autocommit=True) as database:
            while not self._stop.wait(0.01):
                row = database.execute(
                    "SELECT count(*) FILTER (WHERE application_name = 'waiting'), count(*)"
                    " FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                ).fetchone()
                assert row is not None
                self.looks += 1
                self.most = max(self.most, row[0])
                self.most_of_all = max(self.most_of_all, row[1])

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()


@dataclass
class Outage:
    """What was seen of a fault.

    Attributes:
        given_up: how many clients have given up.
        interrupted: the requests to the queue that were under way when it began.
        queue, stub, unrelated: the requests to each that were answered before its end.
        watched: by ``Watcher``; None where the database is not PostgreSQL.
    """

    given_up: int
    interrupted: list[Poll]
    queue: list[Poll]
    stub: list[Poll]
    unrelated: list[Poll]
    watched: Watcher | None

    @property
    def at_once(self) -> list[float]:
        """Seconds of the answers while the circuit breaker is open."""
        polls = [poll for poll in self.queue if poll.code in AT_ONCE]
        opened = min(poll.began for poll in polls if poll.code == "circuit_open")
        return [poll.seconds for poll in polls if poll.began >= opened]

    @property
    def longest(self) -> float:
        """Seconds of the slowest answer from the queue."""
        return max(poll.seconds for poll in [*self.interrupted, *self.queue])

    @property
    def slowest_control(self) -> float:
        """Seconds of the slowest answer to those who asked for something else meanwhile."""
        return max(poll.seconds for poll in [*self.stub, *self.unrelated])


@contextmanager
def fault_of(server: Server, fault: str) -> Iterator[None]:
    """A server that stands still, or is gone."""
    server.freeze() if fault == "frozen" else server.kill()
    try:
        yield
    finally:
        server.thaw() if fault == "frozen" else server.start()


def run(
    site: Site,
    kind: str,
    server: Server,
    fault: str,
    *,
    pollers: int,
    pause: float,
    postgres: str,
    seconds: float,
) -> Outage:
    """An outage; afterwards the site serves tasks again.

    Args:
        pause: seconds between an answer and the poller's next request.
        postgres: the URL of the site's database; "" where it is SQLite.
        seconds: how long to look on when the circuit breaker has opened.
    """
    with ExitStack() as stack:
        watcher = stack.enter_context(Watcher(postgres)) if postgres else None
        asking = stack.enter_context(Pollers(site, kind, pollers, pause))
        # Each has asked, and so some wait at this moment.
        await_that(lambda: len(asking.polls) > pollers)
        with fault_of(server, fault):
            began = time.monotonic()
            await_that(lambda: any(poll.code == "circuit_open" for poll in asking.polls))
            time.sleep(seconds)
            until = time.monotonic()
    polls = [poll for poll in asking.polls if began < poll.ended < until]
    queue = [poll for poll in polls if poll.path not in (STUB, UNRELATED)]
    await_that(lambda: site.get(TASKS).status == 200)
    return Outage(
        given_up=sum(poll.status == 0 for poll in asking.polls),
        interrupted=[poll for poll in queue if poll.began < began],
        queue=[poll for poll in queue if poll.began >= began],
        stub=[poll for poll in polls if poll.path == STUB],
        unrelated=[poll for poll in polls if poll.path == UNRELATED],
        watched=watcher,
    )


def environment(postgres: str) -> dict[str, str]:
    """Variables for the site with that database."""
    options: dict[str, Any] = {"CONNECT_TIMEOUT": 0.5}
    made = {"SITE_WATCHED": "1", "SITE_NATSLEASE": json.dumps(options)}
    if postgres:
        parts = urlsplit(postgres)
        database: Mapping[str, Any] = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.path.lstrip("/"),
            "USER": parts.username,
            "PASSWORD": parts.password,
            "HOST": parts.hostname,
            "PORT": parts.port,
            "OPTIONS": {},
        }
        made["SITE_DATABASE_OPTIONS"] = json.dumps(database)
    return made


def row_of(kind: str, fault: str, pollers: int, seen: Outage) -> dict[str, str]:
    """What the table shows of an outage."""

    def times(seconds: list[float]) -> str:
        return ", ".join(f"{quantile(seconds, share) * 1e3:.0f}" for share in (0.5, 0.99))

    assert seen.watched is not None
    return {
        "server": "gunicorn's threads" if kind == "WSGI" else "uvicorn",
        "NATS": fault,
        "pollers": str(pollers),
        "requests": str(len(seen.queue)),
        "of them not 503": str(sum(poll.status != 503 for poll in seen.queue)),
        "the last answered after (s)": f"{seen.longest:.1f}",
        "breaker open: p50, p99 (ms)": times(seen.at_once),
        "the stub's": times([poll.seconds for poll in seen.stub]),
        "database connections held by waiting views, most": str(seen.watched.most),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="with the breaker open")
    parser.add_argument("--pause", type=float, default=1.0, help="as Retry-After asks for")
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    options = parser.parse_args()
    rows = []
    where = machine()
    with Postgres() as postgres:
        for kind, fault, pollers in itertools.product(KINDS, FAULTS, (16, 32)):
            with tempfile.TemporaryDirectory() as folder, Server() as server:
                natslease.Client(server.url).queue("images").ensure()
                more = environment(postgres.url)
                with serving(kind, Path(folder), server.url, **more) as site:
                    seen = run(
                        site,
                        kind,
                        server,
                        fault,
                        pollers=pollers,
                        pause=options.pause,
                        postgres=postgres.url,
                        seconds=options.seconds,
                    )
            rows.append(row_of(kind, fault, pollers, seen))
            print(rows[-1], file=sys.stderr, flush=True)
    lines = [f"One run, {where['date']}: {where['cpu']}, load before {where['load before']}.", ""]
    lines += [f"| {' | '.join(rows[0])} |", "|" + " --- |" * len(rows[0])]
    lines += [f"| {' | '.join(row.values())} |" for row in rows]
    print("\n".join(lines))
    if options.write:
        insert(PAGE, "outage", "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
