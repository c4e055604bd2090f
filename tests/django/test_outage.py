"""The site under gunicorn, by WSGI and by ASGI, while NATS is frozen or killed under pollers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import natslease
from natslease.testing import Server
from outage import WAIT, Watcher, environment, run
from program import await_that
from replay.figures import quantile
from replay.services import Postgres
from webserver import NATS_TIMEOUT, serving

# What promise 1 allows, and what a process with one core for many threads takes besides is seen
# in the controls.
LATE = 0.25
AT_ONCE = 0.1


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a database; "" where PostgreSQL is missing."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        yield ""
    else:
        with Postgres() as server:
            yield server.url


@pytest.mark.parametrize(
    ("kind", "fault", "pollers"),
    # All eight are run by make outage.
    [
        ("WSGI", "frozen", 32),
        ("WSGI", "killed", 16),
        ("ASGI", "frozen", 16),
        ("ASGI", "killed", 32),
    ],
)
def test_an_outage_is_answered_503_and_the_rest_of_the_site_does_not_notice(
    tmp_path: Path, nats_server: Server, postgres: str, kind: str, fault: str, pollers: int
) -> None:
    natslease.Client(nats_server.url).queue("images").ensure()
    with serving(kind, tmp_path, nats_server.url, **environment(postgres)) as site:
        if postgres:
            # This is what holding looks like.
            with Watcher(postgres) as watcher, ThreadPoolExecutor(3) as threads:
                held = [threads.submit(site.get, "/plain/careless/?wait=1") for _ in range(3)]
                await_that(lambda: watcher.most == 3)
                assert {answer.result().status for answer in held} == {200}
        seen = run(
            site,
            kind,
            nats_server,
            fault,
            pollers=pollers,
            pause=0.3,
            postgres=postgres,
            seconds=1.5,
        )

    assert seen.given_up == 0
    assert {poll.status for poll in seen.unrelated} == {200}
    assert {poll.status for poll in seen.interrupted} <= {200, 503}
    assert {poll.status for poll in seen.queue} == {503}
    assert all(int(poll.retry_after) >= 1 for poll in seen.queue)
    # Within the deadline, less what others were late meanwhile who waited for nothing.
    assert seen.longest < WAIT + NATS_TIMEOUT + LATE + seen.slowest_control
    # At once while the circuit breaker is open, beside who has the same load and no queue. Of so
    # few requests the slowest are slow by chance.
    assert len(seen.at_once) >= pollers
    assert quantile(seen.at_once, 0.5) < quantile([p.seconds for p in seen.stub], 0.5) + AT_ONCE
    assert quantile(seen.at_once, 0.99) < seen.slowest_control + AT_ONCE
    if seen.watched is None:
        pytest.skip("database connections not counted: initdb or postgres is not on PATH")
    assert seen.watched.looks > 50
    assert seen.watched.most <= 2
