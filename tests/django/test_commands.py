"""The management commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

import natslease
from natslease.contrib.django import LeaseRef, clients
from natslease.contrib.django.inbox import apply_once
from natslease.contrib.django.models import InboxEntry
from natslease.fleet import Fleet, Identity
from natslease.testing import Server


def run(*arguments: str, **options: Any) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, no_color=True, **options)
    return out.getvalue()


def read(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_queues(images: natslease.Queue, site: Any) -> None:
    clients["default"].queue("other", subject="x.y", consumer="c").ensure()
    images.publish([b"0"] * 1200)
    images.reserve(2, wait=5)
    lines = run("natslease_queues").splitlines()
    assert [line.split() for line in lines] == [
        ["QUEUE", "CONSUMER", "PENDING", "LEASED", "REDELIVERED", "SIZE", "OLDEST"],
        ["images", "images", "1,198", "2", "0", *size(images), "0", "s"],
        ["other", "c", "0", "0", "0", "0", "B", "-"],
    ]
    assert lines[0].index("LEASED") + len("LEASED") == lines[1].index("2 ") + 1
    assert run("natslease_queues", "oth*").count("\n") == 2
    assert run("natslease_queues", "none*") == "There is no queue none*.\n"
    found = read("natslease_queues", "images")
    (row,) = found["queues"]
    assert (row["stream"], row["pending"], row["leased"]) == ("images", 1198, 2)


def size(queue: natslease.Queue) -> list[str]:
    return [f"{queue.info().bytes / 1024:.0f}", "KiB"]


def test_queues_again_and_again_until_it_is_interrupted(nats_server: Server) -> None:
    here = Path(__file__).parent
    # Where the tests run in the background it is ignored, which a process would inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "natslease_queues", "--json", "--interval", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": f"{here}:{here.parents[1] / 'python'}",
            "SITE_NATS_URL": nats_server.url,
        },
    )
    signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert [line["queues"] for line in lines] == [[], [], []]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("interval", ["0", "-1", "x", "nan", "inf"])
def test_intervals_that_are_none(site: Any, interval: str) -> None:
    with pytest.raises(CommandError, match="no number of seconds"):
        run("natslease_queues", "--interval", interval)


@pytest.mark.parametrize(
    "command", [["natslease_queues"], ["natslease_dead_letters", "x", "--letters", "dead"]]
)
def test_an_outage_is_explained(site: Any, nats_server: Server, command: list[str]) -> None:
    nats_server.kill()
    with pytest.raises(CommandError, match="could not be connected to"):
        run(*command)
    with pytest.raises(CommandError, match="no alias 'other'"):
        run(*command, "--alias", "other")


def test_dead_letters(site: Any, images: natslease.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="DEAD_LETTERS"):
        run("natslease_dead_letters", "jobs")
    site.NATSLEASE["default"]["DEAD_LETTERS"] = "dead"
    queue = clients["default"].queue("jobs", max_deliver=1, dead_letters="dead")
    queue.ensure()
    command = ("natslease_dead_letters", "jobs")
    assert run(*command) == "jobs has no dead letters.\n"
    assert run(*command, "--requeue") == "0 letters\n"
    queue.publish([natslease.Message(b'{"n": 1}', id="17"), natslease.Message(b"\xff", id="18")])
    queue.nak(queue.reserve(2, wait=5), reason="no luck")
    title, *rows = run(*command).splitlines()
    assert title.split() == ["TASK", "SEQ", "ATTEMPTS", "DIED", "WORKER", "REASON"]
    assert len(rows) == 2
    assert rows[0].startswith("17")
    assert rows[0].endswith("no luck")
    found = read(*command)
    assert [(row["id"], row.get("data")) for row in found] == [("17", {"n": 1}), ("18", None)]
    assert len(read(*command, "--limit", "1")) == 1

    monkeypatch.setattr("builtins.input", lambda _: "n")
    with pytest.raises(CommandError, match="nothing was done"):
        run(*command, "--requeue")
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert run(*command, "--requeue", "--limit", "1") == "1 requeued, 0 failed\n"
    assert read(*command, "--discard", "--yes") == {"discarded": 1}
    assert read(*command) == []
    assert [lease.id for lease in queue.reserve(5, wait=5)] == ["17"]
    with pytest.raises(CommandError, match="not allowed with"):
        run(*command, "--requeue", "--discard")


def test_workers_and_who_has_a_task(images: natslease.Queue) -> None:
    images.publish([natslease.Message(b"{}", id="17")])
    assert run("natslease_workers") == "There are no workers.\n"
    client = clients["default"]
    fleet = Fleet(client)
    with fleet.join(Identity("adc", "gpu-box")):
        images.reserve(1, wait=5)
        fleet.flush()
        (row,) = read("natslease_workers")
        assert (row["worker"], row["holding"]) == ("adc@gpu-box/0", {"images": 1})
        assert "adc@gpu-box/0" in run("natslease_workers", "--queue", "images")
        assert run("natslease_workers", "--queue", "other") == "There are no workers.\n"
        told = run("natslease_workers", "--queue", "images", "--task", "17")
        assert told.startswith("17 of images: leased to adc@gpu-box/0 since ")
        with pytest.raises(CommandError, match="nothing is known"):
            run("natslease_workers", "--queue", "images", "--task", "18")


def test_doctor(images: natslease.Queue, nats_server: Server) -> None:
    output = run("natslease_doctor", "--queue", "images", "--trial")
    assert "ok       connection: connected to" in output
    assert "ok       trial: made a queue" in output
    assert "warning  durability: images has one replica" in output
    found = read("natslease_doctor")
    assert {"check": "jetstream", "status": "ok"}.items() <= found[3].items()
    nats_server.kill()
    out = StringIO()
    with pytest.raises(CommandError, match="1 of 1 failed"):
        call_command("natslease_doctor", "--json", stdout=out)
    (finding,) = json.loads(out.getvalue())
    assert finding["status"] == "failed"
    assert "firewall" in finding["advice"]


@pytest.mark.django_db(transaction=True)
def test_settle(images: natslease.Queue, nats_server: Server) -> None:
    images.publish([b"x"])
    (lease,) = images.reserve(1, wait=5)
    with nats_server.frozen(), apply_once(LeaseRef.of(lease), timeout=0.3):
        pass
    InboxEntry.objects.update(saved_at="2026-01-01T00:00Z")
    images.info()
    assert read("natslease_settle") == {"settled": 1, "pruned": 0}
    assert run("natslease_settle", "--keep-days", "0") == "1 pruned\n"
    assert images.info().messages == 0
