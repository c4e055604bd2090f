"""What the doctor finds, and what it advises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import natslease
from natslease.doctor import Finding, examine
from natslease.testing import Cluster, Server
from program import await_that


def findings(client: natslease.Client, **options: Any) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in examine(client, timeout=2, **options):
        assert bool(finding.advice) == (finding.status != "ok"), finding
        found.setdefault(finding.check, []).append(finding)
    return found


def statuses(client: natslease.Client, **options: Any) -> dict[str, list[str]]:
    found = findings(client, **options)
    return {check: [finding.status for finding in listed] for check, listed in found.items()}


def test_a_server_that_is_as_it_should_be(nats_server: Server) -> None:
    client = natslease.Client(nats_server.url)
    queue = client.queue("images")
    queue.ensure()
    queue.publish([b"x"])
    found = statuses(client, queue=queue, trial=True)
    assert found.pop("server") in (["ok"], ["warning"])  # newest, oldest
    assert found == {
        "connection": ["ok"],
        "round trip": ["ok"],
        "jetstream": ["ok"],
        "clock": ["ok"],
        "durability": ["warning"],  # one replica: as the server comes
        "permissions": ["ok", "ok", "ok"],
        "trial": ["ok"],
    }
    (lease,) = queue.reserve(1, wait=5)
    assert lease.data == b"x"
    assert queue.info().last_seq == 1  # nothing was published
    assert [stream.name for stream in client.streams()] == ["images"]


def test_durability(nats_server: Server) -> None:
    client = natslease.Client(nats_server.url)
    client.queue("memory", storage="memory").ensure()
    client.queue("disk").ensure()
    disk, memory = findings(client)["durability"]
    assert "disk has one replica" in disk.text
    assert "every 2 minutes" in disk.text
    assert "memory is kept in memory" in memory.text
    assert set(statuses(client, pattern="none*")) == {
        "connection",
        "round trip",
        "server",
        "jetstream",
    }

    url = nats_server.monitor_url
    disk, _ = findings(client, monitor=url)["durability"]
    assert "every 120 s" in disk.text
    store = nats_server.directory / "data"
    nats_server.config = f"jetstream {{ store_dir: '{store}', sync_interval: always }}"
    nats_server.restart()
    (disk,) = findings(client, monitor=url)["durability"]  # memory has gone with the process
    assert disk.status == "ok"


def test_a_monitoring_port_that_is_none(nats_server: Server) -> None:
    client = natslease.Client(nats_server.url)
    for url in ("http://127.0.0.1:1", nats_server.url.replace("nats", "http"), "no url"):
        (finding,) = findings(client, monitor=url)["durability"]
        assert finding.status == "warning"
        assert "monitoring port" in finding.text


def test_a_saturated_queue(nats_server: Server) -> None:
    client = natslease.Client(nats_server.url)
    queue = client.queue("images", max_ack_pending=2)
    queue.ensure()
    queue.publish([b"a", b"b"])
    assert len(queue.reserve(2, wait=5)) == 2
    (finding,) = findings(client)["queues"]
    assert "all 2 leases of images are out" in finding.text


def test_a_replica_that_is_away() -> None:
    with Cluster() as cluster:
        first, *_, last = (s for s in cluster.servers if s is not cluster.wait())
        client = natslease.Client(first.url, timeout=30)
        for name in ("images", "sounds"):
            client.queue(name, replicas=3).ensure()

        def away() -> set[tuple[str, str]]:
            streams = client.streams(consumers=True)
            consumers = [c for s in streams for c in s.consumers]
            return {(there, s.name) for s in streams for there in s.away} | {
                (there, c.stream) for c in consumers for there in c.away
            }

        await_that(lambda: not away())
        assert "queues" not in findings(client)
        last.kill()
        await_that(lambda: away() == {(last.name, "images"), (last.name, "sounds")})
        found = findings(client, pattern="[is]*")["queues"]
        assert [(f.status, f.text) for f in found] == [
            (
                "warning",
                f"{last.name} is offline or not heard: it has a replica of images and 1 more",
            )
        ]
        last.start()
        await_that(lambda: not away())
        assert "queues" not in findings(client)


def test_limits(nats_server: Server) -> None:
    nats_server.config = (
        "accounts { A { users: [{ user: u, password: p }], jetstream: { max_streams: 1 } } }"
    )
    nats_server.restart()
    client = natslease.Client(nats_server.url, user="u", password="p")
    assert statuses(client)["limits"] == ["ok"]
    client.queue("images").ensure()
    (finding,) = findings(client)["limits"]
    assert (finding.status, finding.text) == ("warning", "1 of 1 streams")


def test_permissions(nats_server: Server) -> None:
    nats_server.config = """authorization { users: [
        { user: all, password: p }
        { user: web, password: p, permissions: {
            publish: ["$JS.API.STREAM.INFO.*", "$JS.API.CONSUMER.INFO.*.*"]
            subscribe: ["_INBOX.>"] } }
    ] }"""
    nats_server.restart()
    everything = natslease.Client(nats_server.url, user="all", password="p")
    everything.queue("images").ensure()
    client = natslease.Client(nats_server.url, user="web", password="p")
    found = findings(client, queue=client.queue("images"), trial=True)
    look, publish, take = found["permissions"]
    assert look.status == "ok"
    for refused in (publish, take):
        assert refused.status == "failed"
        assert "permissions.md" in refused.advice
    assert "cannot publish to images" in publish.text
    assert found["jetstream"][0].status == "warning"
    assert found["queues"][0].status == "warning"
    assert found["trial"][0].status == "failed"
    assert "cannot make a queue" in found["trial"][0].text


def test_publishing_to_what_is_no_subject_of_a_stream(nats_server: Server) -> None:
    client = natslease.Client(nats_server.url)
    client.queue("images", subject="images.tasks").ensure()
    _, publish, _ = findings(client, queue=client.queue("images"))["permissions"]
    assert (publish.status, "--subject" in publish.advice) == ("warning", True)


def test_publishing_to_a_full_stream(nats_server: Server) -> None:
    client = natslease.Client(nats_server.url)
    queue = client.queue("images", max_bytes=100)
    queue.ensure()
    assert queue.publish([b"x" * 200]).failed
    statuses_of = [finding.status for finding in findings(client, queue=queue)["permissions"]]
    assert statuses_of == ["ok", "ok", "ok"]


@pytest.mark.parametrize("fault", ["killed", "frozen", "password", "without JetStream"])
def test_what_does_not_work(nats_server: Server, fault: str, tmp_path: Path) -> None:
    client = natslease.Client(nats_server.url, user="u", password="wrong")
    if fault == "killed":
        nats_server.kill()
    elif fault == "frozen":
        nats_server.freeze()
    elif fault == "password":
        nats_server.config = "authorization { user: u, password: p }"
        nats_server.restart()
    else:
        with Server(jetstream=False) as bare:
            found = list(examine(natslease.Client(bare.url), timeout=2))
            assert found[-1].check == "jetstream"
            assert found[-1].status == "failed"
            assert "Enable JetStream" in found[-1].advice
        return
    (finding,) = examine(client, timeout=1, trial=True)
    assert (finding.check, finding.status) == ("connection", "failed")
    assert finding.advice
    assert "wrong" not in finding.text
