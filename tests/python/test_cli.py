"""The command line, as an operator and as a script use it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import natslease
from natslease.fleet import Fleet, Identity
from natslease.testing import Server


class Ended(NamedTuple):
    """How a command has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Natslease = Callable[..., Ended]


@pytest.fixture
def natslease_(nats_url: str) -> Natslease:
    """Runs the command line with the server in its environment."""
    return lambda *arguments, **options: run(*arguments, NATS_URL=nats_url, **options)


def run(*arguments: str, stdin: str = "", **environment: str) -> Ended:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "natslease", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def queue(nats_url: str) -> natslease.Queue:
    queue = natslease.Client(nats_url).queue("tasks", ack_wait=30)
    queue.ensure()
    return queue


def test_publish_takes_each_line(natslease_: Natslease, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(f'{{"id": {i}}}\n' for i in range(300)) + "\n")
    ended = natslease_("publish", "tasks", str(file), "--create", "--id-key", "id", "--json")
    assert ended == (0, '{"accepted": 300, "duplicates": 0, "failed": []}\n', "")
    again = natslease_("publish", "tasks", "--id-key", "id", stdin=file.read_text())
    assert again == (0, "0 accepted, 300 duplicates, 0 failed\n", "")


@pytest.mark.parametrize(
    ("lines", "options", "said"),
    [
        ('{"id": 1}\nnonsense\n', (), "line 2 is not JSON"),
        ('{"id": 1}\n{"name": 2}\n', ("--id-key", "id"), "line 2 has no 'id'"),
    ],
)
def test_publish_stops_at_a_line_that_is_none(
    natslease_: Natslease, queue: natslease.Queue, lines: str, options: tuple[str, ...], said: str
) -> None:
    ended = natslease_("publish", "tasks", *options, stdin=lines)
    assert ended.code == 1
    assert said in ended.err
    assert queue.info().messages == 0


def test_publish_raw_takes_any_line(natslease_: Natslease, queue: natslease.Queue) -> None:
    assert natslease_("publish", "tasks", "--raw", stdin="not JSON\n").code == 0
    assert [lease.data for lease in queue.reserve(2)] == [b"not JSON"]


def test_publish_names_the_lines_that_failed(natslease_: Natslease, nats_url: str) -> None:
    small = natslease.Client(nats_url).queue("small", max_messages=2)
    small.ensure()
    ended = natslease_("publish", "small", "--json", stdin="1\n2\n3\n")
    assert ended.code == 1
    assert [failed["line"] for failed in ended.json["failed"]] == [3]
    assert ended.err.startswith("line 3: ")


def test_what_is_reserved_can_be_settled(natslease_: Natslease, queue: natslease.Queue) -> None:
    queue.publish([b'{"image": 1}', b"\xff"])
    reserved = natslease_("reserve", "tasks", "-n", "5")
    first, second = reserved.lines
    assert first["data"] == {"image": 1}
    assert second["data_base64"] == "/w=="
    assert first["attempt"] == 1
    assert natslease_("ack", "tasks", stdin=reserved.out) == (0, "2 settled, 0 not\n", "")
    assert queue.info().messages == 0


def test_reserved_tasks_are_given_back(natslease_: Natslease, queue: natslease.Queue) -> None:
    queue.publish([b"1"])
    assert len(natslease_("reserve", "tasks", "--then", "release").lines) == 1
    (lease,) = queue.reserve(1, wait=1)
    assert lease.attempt == 2


def test_an_empty_queue_prints_nothing(natslease_: Natslease, queue: natslease.Queue) -> None:
    assert natslease_("reserve", queue.stream) == (0, "", "")


def test_nak_and_term(natslease_: Natslease, queue: natslease.Queue) -> None:
    queue.publish([b"1", b"2"])
    one, two = (lease.ack_subject for lease in queue.reserve(2))
    assert natslease_("ack", "tasks", one, "--as", "term", "--reason", "no").code == 0
    assert natslease_("ack", "tasks", two, "--as", "nak").code == 0
    assert [lease.data for lease in queue.reserve(2, wait=1)] == [b"2"]


@pytest.mark.parametrize("forged", ["$JS.API.STREAM.PURGE.tasks", "tasks", "{"])
def test_promise_12_forged_ack_subjects_are_not_sent(
    natslease_: Natslease, queue: natslease.Queue, forged: str
) -> None:
    queue.publish([b"1"])
    ended = natslease_("ack", "tasks", "--json", forged)
    assert ended.code == 1
    assert ended.json["status"] == "invalid"
    assert queue.info().messages == 1


def test_queues(natslease_: Natslease, queue: natslease.Queue) -> None:
    queue.publish([b"1", b"2", b"3"])
    queue.reserve(1)
    (row,) = natslease_("queues", "ta*", "--json").json
    assert (row["stream"], row["pending"], row["leased"]) == ("tasks", 2, 1)
    shown = natslease_("queues")
    assert shown.out.splitlines()[1].split()[:4] == ["tasks", "tasks", "2", "1"]
    assert natslease_("queues", "nothing*") == (0, "no streams match 'nothing*'\n", "")


def test_queues_goes_on(nats_url: str, queue: natslease.Queue) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "natslease", "queues", "--json", "--interval", "0.1"],
        stdout=subprocess.PIPE,
        env={**os.environ, "NATS_URL": nats_url},
    ) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert json.loads(process.stdout.readline())["queues"][0]["stream"] == queue.stream
        process.terminate()


def test_purge_asks_first(natslease_: Natslease, queue: natslease.Queue) -> None:
    queue.publish([b"1", b"2"])
    refused = natslease_("purge", "tasks", stdin="n\n")
    assert refused.code == 1
    assert "Delete all tasks of tasks?" in refused.err
    assert natslease_("purge", "tasks").code == 1  # nobody answers
    assert queue.info().messages == 2
    assert natslease_("purge", "tasks", "--yes", "--json").json == {"purged": 2}


def test_a_queue_is_known_by_its_stream(natslease_: Natslease, nats_url: str) -> None:
    client = natslease.Client(nats_url)
    client.queue("job_1", subject="job.1.tasks", consumer="job-1-consumer").ensure()
    assert natslease_("publish", "job_1", stdin="1\n2\n3\n").code == 0
    reserved = natslease_("reserve", "job_1")
    assert natslease_("ack", "job_1", stdin=reserved.out).code == 0
    assert natslease_("purge", "job_1", "--yes", "--json").json == {"purged": 2}


def test_which_queue_of_a_stream_is_asked_for(natslease_: Natslease, nats_url: str) -> None:
    client = natslease.Client(nats_url)
    queues = [client.queue("jobs", subject=f"job.{n}.tasks", consumer=f"job-{n}") for n in (1, 2)]
    for queue in queues:
        queue.ensure(conflict="update")
        queue.publish([b"1", b"2"])
    for command in (("purge", "jobs", "--yes"), ("publish", "jobs")):
        ended = natslease_(*command)
        assert ended.code == 1
        assert ended.err == "Error: jobs takes job.1.tasks, job.2.tasks: say which by --subject\n"
    ended = natslease_("reserve", "jobs")
    assert ended.err == "Error: jobs has job-1, job-2: say which by --consumer\n"
    assert natslease_("reserve", "jobs", "--consumer", "job-1").lines
    assert natslease_("reserve", "jobs", "--subject", "job.1.tasks").lines
    place = ("--subject", "job.2.tasks")
    assert natslease_("purge", "jobs", *place, "--yes", "--json").json == {"purged": 2}
    assert [queue.info().num_pending for queue in queues] == [0, 0]
    assert [queue.info().num_ack_pending for queue in queues] == [2, 0]


def test_dead_letters(natslease_: Natslease, nats_url: str) -> None:
    queue = natslease.Client(nats_url).queue("tasks", max_deliver=1, dead_letters="dead")
    queue.ensure()
    queue.publish([natslease.Message(b'{"image": 1}', id="a"), natslease.Message(b"2", id="b")])
    for lease in queue.reserve(2):
        lease.nak(reason="no such image")
    letters = natslease_("dead-letters", "tasks", "--letters", "dead", "--json").json
    assert [(letter["id"], letter["reason"]) for letter in letters] == [
        ("a", "no such image"),
        ("b", "no such image"),
    ]
    shown = natslease_("dead-letters", "tasks", "--letters", "dead").out
    assert "no such image" in shown
    requeue = ("requeue", "tasks", "--letters", "dead")
    assert natslease_(*requeue).code == 2
    assert natslease_(*requeue, "c", "--yes").code == 4
    assert natslease_(*requeue, "a", stdin="n\n").code == 1
    assert natslease_(*requeue, "a", "--yes", "--json").json == {"requeued": 1, "failed": []}
    assert natslease_(*requeue, "--all", "--yes").out == "1 requeued, 0 failed\n"
    assert sorted(lease.id for lease in queue.reserve(3, wait=1)) == ["a", "b"]


def test_bench_leaves_nothing(natslease_: Natslease, nats_url: str) -> None:
    figures = natslease_("bench", "--tasks", "200", "--json").json
    assert figures["published_per_s"] > 0
    assert figures["reserve_64_us"]["median"] > 0
    assert natslease.Client(nats_url).streams("natslease_bench*") == []


@pytest.fixture
def fleet(nats_url: str, queue: natslease.Queue) -> Iterator[Fleet]:
    """Of which one worker has task 17 of the queue."""
    queue.publish([natslease.Message(b"{}", id="17")])
    with natslease.Client(nats_url, name="worker") as client:
        fleet = Fleet(client)
        with fleet.join(Identity("adc", "gpu-box", "1"), version="2.0"):
            (lease,) = client.queue("tasks").reserve(1)
            fleet.flush()
            yield fleet
            lease.ack()


def test_workers(natslease_: Natslease, fleet: Fleet) -> None:
    (row,) = natslease_("workers", "--json").json
    assert (row["worker"], row["status"], row["holding"]) == (
        "adc@gpu-box/1",
        "online",
        {"tasks": 1},
    )
    assert natslease_("workers").out.splitlines()[1].startswith("adc@gpu-box/1  online")
    assert natslease_("workers", "--status", "offline").out == "no workers\n"
    assert len(natslease_("workers", "--queue", "tasks", "--json").json) == 1
    assert natslease_("workers", "--queue", "other", "--json").json == []


def test_who_has_a_task_and_since_when(natslease_: Natslease, fleet: Fleet) -> None:
    told = natslease_("task", "tasks", "17")
    assert told.code == 0
    assert told.out.startswith("17 of tasks: leased to adc@gpu-box/1 since 20")
    described = natslease_("task", "tasks", "1", "--seq", "--json").json
    assert (described["id"], described["worker"], described["state"]) == (
        "17",
        "adc@gpu-box/1",
        "leased",
    )
    assert natslease_("task", "tasks", "18").code == 4
    assert natslease_("task", "tasks", "x", "--seq").code == 2


def test_events_are_followed(natslease_: Natslease, nats_url: str, fleet: Fleet) -> None:
    (event,) = natslease_("events", "tasks", "--json").lines
    assert (event["kind"], event["ids"], event["worker"]) == ("reserve", ["17"], "adc@gpu-box/1")
    assert "reserve     1 of tasks  by adc@gpu-box/1: 17" in natslease_("events").out
    command = [sys.executable, "-m", "natslease", "events", "--follow", "--json"]
    environment = {**os.environ, "NATS_URL": nats_url}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["kind"] == "reserve"
        client = fleet._client
        assert isinstance(client, natslease.Client)
        queue = client.queue("tasks")
        queue.publish([natslease.Message(b"{}", id="18")])
        queue.ack(queue.reserve(1))
        fleet.flush()
        kinds = [json.loads(process.stdout.readline())["kind"] for _ in range(2)]
        assert kinds == ["reserve", "ack"]
        process.terminate()


def test_sweep_asks_first(natslease_: Natslease, nats_url: str, queue: natslease.Queue) -> None:
    for name in ("job_1", "job_2", "job_3"):
        natslease.Client(nats_url).queue(name).ensure()
    sweep = ("sweep", "job_*", "--min-age", "0", "--keep", "job_2")
    listed = natslease_(*sweep, "--dry-run", "--json")
    assert sorted(listed.json["orphans"]) == ["job_1", "job_3"]
    assert natslease_(*sweep, stdin="n\n").code == 1
    assert len(natslease.Client(nats_url).streams("job_*")) == 3
    assert sorted(natslease_(*sweep, "--yes", "--json").json["deleted"]) == ["job_1", "job_3"]
    left = natslease.Client(nats_url).streams("job_*")
    assert [stream.name for stream in left] == ["job_2"]
    assert queue.info().messages == 0  # it does not match


def test_doctor(natslease_: Natslease, nats_server: Server, queue: natslease.Queue) -> None:
    well = natslease_("doctor", "--queue", queue.stream, "--trial", "--json")
    assert well.code == 0
    checks = {finding["check"]: finding for finding in well.json}
    assert checks["permissions"]["status"] == checks["trial"]["status"] == "ok"
    assert natslease_("doctor").out.startswith("ok       connection: ")
    nats_server.stop()
    ill = natslease_("doctor", "--timeout", "2")
    assert ill.code == 1
    assert ill.out.startswith("failed ")


def test_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reservation:
        port = str(reservation.getsockname()[1])
    store = tmp_path / "store"
    with subprocess.Popen(
        [sys.executable, "-m", "natslease", "server", "--port", port, "--store", str(store)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "Server is ready" not in process.stderr.readline():
            assert process.poll() is None
        url = f"nats://localhost:{port}"
        assert run("publish", "tasks", "--create", stdin="1\n", NATS_URL=url).code == 0
        process.terminate()
        process.stderr.read()
    assert store.is_dir()


def test_exit_codes(natslease_: Natslease, nats_server: Server) -> None:
    assert natslease_("reserve", "nowhere").code == 4
    assert natslease_("queues", "--timeout", "0").code == 2
    assert run("queues", NATS_URL="ftp://localhost").code == 2
    nats_server.stop()
    ended = natslease_("queues", "--timeout", "2", "--json")
    assert ended.code == 3
    assert json.loads(ended.err)["error"]["code"] == "connect_failed"
    assert "nothing listens at that address" in natslease_("queues").err
    nats_server.config = 'authorization { user: "me", password: "secret" }'
    nats_server.start()
    ended = natslease_("queues", NATS_USER="me", NATS_PASSWORD="wrong-canary")
    assert ended.code == 5
    assert "wrong-canary" not in ended.err


def test_without_its_packages_it_says_which(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError('no click', name='click')")
    ended = run("queues", PYTHONPATH=str(tmp_path))
    assert ended.code == 1
    assert ended.err == (
        "natslease's command line needs click and rich: pip install 'natslease[cli]'\n"
    )
