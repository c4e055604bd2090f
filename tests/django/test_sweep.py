"""Orphan queues: the command, the task, and the settings."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import CommandError

from natslease.contrib.celery import sweep as task
from natslease.contrib.django import clients, fleet_of, sweep
from natslease.contrib.django.checks import check_settings
from natslease.fleet import Identity
from natslease.testing import Server

WANTED: set[str] = set()


def wanted() -> set[str]:
    """As a site would ask its database."""
    if "fail" in WANTED:
        raise RuntimeError("the database is away")
    return WANTED


@pytest.fixture
def queues(site: Any) -> list[str]:
    """Queues of three jobs, of which the second is wanted, and another one."""
    site.NATSLEASE["default"] |= {
        "DEAD_LETTERS": "job_dead",
        "FLEET": {"BUCKET": "job_workers"},
        "SWEEP": {"PATTERN": "*job_*", "KEEP": f"{__name__}.wanted", "MIN_AGE": 0},
    }
    WANTED.clear()
    WANTED.add("job_2")
    names = ["job_1", "job_2", "job_3", "other"]
    for name in names:
        clients["default"].queue(name, max_deliver=1, dead_letters="job_dead").ensure()
    fleet_of().ensure()
    return names


def left() -> list[str]:
    return [stream.name for stream in clients["default"].streams()]


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("natslease_sweep", *arguments, stdout=out, no_color=True)
    return out.getvalue()


def test_a_dry_run_deletes_nothing(queues: list[str]) -> None:
    before = left()
    assert [orphan.name for orphan in sweep().orphans] == ["job_1", "job_3"]
    title, *rows = run("--dry-run").splitlines()
    assert title.split()[:2] == ["QUEUE", "MESSAGES"]
    assert [row.split()[0] for row in rows] == ["job_1", "job_3"]
    told = json.loads(run("--dry-run", "--json"))
    assert [orphan["stream"] for orphan in told["orphans"]] == ["job_1", "job_3"]
    assert task(dry_run=True)["orphans"] == ["job_1", "job_3"]
    assert left() == before


def test_after_a_question(queues: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "")
    with pytest.raises(CommandError, match="nothing was done"):
        run()
    before = left()
    assert "job_1" in before
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    assert run().splitlines()[-1] == "2 deleted, 0 failed"
    # Neither what is wanted, nor what natslease keeps for itself.
    assert left() == [name for name in before if name not in ("job_1", "job_3")]
    assert {"KV_job_workers", "job_dead", "job_2", "other"} <= set(left())
    assert run("--yes") == "There are no orphan queues.\n"


def test_the_task(queues: list[str], caplog: pytest.LogCaptureFixture) -> None:
    assert task() == {
        "orphans": ["job_1", "job_3"],
        "deleted": ["job_1", "job_3"],
        "failed": {},
        "more": False,
    }
    assert "orphan queues deleted: job_1, job_3" in caplog.text
    assert task()["orphans"] == []


def test_a_limit_and_an_age(queues: list[str], site: Any) -> None:
    options = site.NATSLEASE["default"]["SWEEP"]
    options["LIMIT"] = 1
    assert task() == {"orphans": ["job_1"], "deleted": ["job_1"], "failed": {}, "more": True}
    del options["MIN_AGE"]  # an hour
    assert task()["orphans"] == []


def test_nothing_is_deleted_when_it_is_not_known_what_is_wanted(queues: list[str]) -> None:
    before = left()
    WANTED.add("fail")
    with pytest.raises(RuntimeError, match="the database is away"):
        task()
    with pytest.raises(RuntimeError):
        run("--yes")
    assert left() == before


def test_an_outage(queues: list[str], nats_server: Server) -> None:
    nats_server.kill()
    with pytest.raises(CommandError):
        run("--yes")


@pytest.mark.parametrize(
    "options",
    [None, {}, {"PATTERN": "*"}, {"KEEP": "x"}, {"PATTERN": "*", "KEEP": "x.y", "AGE": 3}],
)
def test_settings_that_do_not_say(site: Any, options: Any) -> None:
    site.NATSLEASE["default"]["SWEEP"] = options
    with pytest.raises(ImproperlyConfigured, match="SWEEP"):
        sweep()
    assert [m.id for m in check_settings()] == ["natslease.E001"]


def test_settings_are_checked(site: Any) -> None:
    alias = site.NATSLEASE["default"]
    alias["SWEEP"] = {"PATTERN": "job_*", "KEEP": f"{__name__}.wanted"}
    alias["FLEET"] = {"HEARTBEAT": 5.0}
    assert check_settings() == []
    assert fleet_of().heartbeat == 5.0
    alias["SWEEP"] = {"PATTERN": "job_*", "KEEP": f"{__name__}.nothing"}
    alias["FLEET"] = {"HEARTBEATS": 5.0}
    assert [m.id for m in check_settings()] == ["natslease.E001"] * 2


def test_the_place_of_a_worker_can_be_written() -> None:
    """As the page sends it back."""
    place = Identity("adc (lab@west)", host="h~1", slot="0")
    assert Identity.parse(str(place)) == place
