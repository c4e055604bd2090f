"""Workers: who may go on, who has which task, and what an operator can do."""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest

import natslease
from children import in_child, python
from faces import Face
from natslease.fleet import Fleet, Identity, TaskHistory, default_host

GPU = Identity("moths (v2)", "node.example", "0")


@pytest.fixture
def site(face: Face, nats_url: str) -> Callable[..., tuple[Any, Any]]:
    """Makes a client with a connection of its own, and its fleet."""
    count = iter(range(100))

    def make(**options: Any) -> tuple[Any, Any]:
        client = face.client(nats_url, timeout=10.0, name=f"site {next(count)}")
        return client, face.fleet(client, **options)

    return make


def publish(queue: Any, n: int) -> None:
    report = queue.publish([natslease.Message(b"x", id=f"{i + 1}") for i in range(n)])
    assert len(report.accepted) == n


def test_a_newer_worker_fences_the_older(site: Callable[..., tuple[Any, Any]]) -> None:
    (older_client, older_fleet), (newer_client, newer_fleet) = site(), site()
    queue = older_client.queue("job_1", ack_wait=30)
    queue.ensure()
    publish(queue, 3)
    older = older_fleet.join(GPU, version="1", info={"gpu": "a"})
    (lease,) = queue.reserve(1, wait=5)
    assert not older.superseded
    newer = newer_fleet.join(GPU, version="2")
    assert newer.epoch > older.epoch
    for take in (
        lambda: queue.reserve(1),
        lambda: older_client.reserve_any([queue], 1),
        older.check,
    ):
        with pytest.raises(natslease.Superseded, match="newer worker") as caught:
            take()
        assert caught.value.code == "superseded"
    assert older.superseded
    lease.release()  # what it has it can give back
    assert len(newer_client.queue("job_1", ack_wait=30).reserve(3, wait=5)) == 3
    newer.check()

    (worker,) = newer_fleet.workers()
    assert (worker.worker, worker.version, worker.status) == (GPU, "2", "online")
    older.leave()  # of no consequence
    newer.update(version="3")
    newer.leave()
    newer.leave()
    (worker,) = older_fleet.workers()
    assert (worker.status, worker.left, worker.holding) == ("offline", True, {})
    with pytest.raises(natslease.ConfigError, match="has left"):
        newer.check()


def test_three_fencings_in_a_minute_stop_the_fencing(site: Callable[..., tuple[Any, Any]]) -> None:
    workers = [site()[1].join(GPU, version=str(i)) for i in range(4)]
    with pytest.raises(natslease.Superseded) as caught:
        site()[1].join(GPU, version="late")
    assert "version 3" in str(caught.value)
    assert "version late" in str(caught.value)
    assert 30 < caught.value.retry_after <= 60
    assert [worker.superseded for worker in workers] == [True, True, True, False]


def test_workers_that_a_server_speaks_for(site: Callable[..., tuple[Any, Any]]) -> None:
    client, web = site()
    queue = client.queue("job_1", ack_wait=30)
    queue.ensure()
    publish(queue, 3)
    older = web.register(GPU, version="1", address="10.0.0.7")
    assert older.fenced is None
    web.renew(GPU, older.epoch)
    leases = queue.reserve(3, wait=5)
    web.record("reserve", GPU, leases, epoch=older.epoch)
    web.record("ack", GPU, [leases[0].ack_subject], epoch=older.epoch)
    web.record("nak", GPU, [leases[1].ack_subject], epoch=older.epoch, reason="no image")
    written, dropped = web.flush()
    assert (written > 0, dropped) == (True, 0)

    newer = web.register(GPU, version="2")
    assert newer.fenced.address == "10.0.0.7"
    with pytest.raises(natslease.Superseded):
        web.renew(GPU, older.epoch)
    web.renew(GPU, newer.epoch, info={"gpu": "b"})

    states = {h.id: (h.state, h.holder) for h in web.history("job_1")}
    assert states == {"1": ("done", None), "2": ("failed", None), "3": ("leased", GPU)}
    task = web.task("job_1", "2")
    assert isinstance(task, TaskHistory)
    assert [(e.kind, e.worker, e.attempt, e.reason) for e in task.events] == [
        ("reserve", GPU, 1, ""),
        ("nak", GPU, 0, "no image"),
    ]
    assert web.task("job_1", leases[2].seq) == web.task("job_1", "3")
    assert f"3 of job_1: leased to {GPU} since " in str(web.task("job_1", "3"))
    assert web.task("job_1", "4") is None
    assert web.task("job_2", "1") is None
    (holder,) = web.holders("job_1")
    assert (holder.holding, holder.took, holder.done, holder.failed) == (1, 3, 1, 1)
    assert abs(holder.last_at - time.time()) < 60
    assert [(e.kind, e.ids) for e in web.events("job_1")] == [
        ("reserve", ["1", "2", "3"]),
        ("ack", []),
        ("nak", []),
    ]
    assert web.events(since=time.time() + 3600) == []

    old = Identity("token 1a2b", "10.0.0.8")
    web.seen(old, version="0.9")
    assert web.stop(old, "too old") is True
    with pytest.raises(natslease.Superseded, match="too old"):
        web.seen(old)
    shown = {w.worker: w for w in web.workers()}
    assert (shown[old].anonymous, shown[old].stopped, shown[old].status) == (
        True,
        "too old",
        "offline",
    )
    assert shown[GPU].info == {"gpu": "b"}
    assert web.allow(old) is True
    web.seen(old)
    assert web.stop(Identity("nobody")) is False
    web.leave(GPU, newer.epoch)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda f: f.register("moths"), TypeError),
        (lambda f: f.renew(GPU, 0), natslease.ConfigError),
        (lambda f: f.record("eat", GPU, []), natslease.ConfigError),
        (lambda f: f.record("ack", GPU, ["$JS.API.STREAM.PURGE.job_1"]), natslease.InvalidLease),
        (lambda f: f.holders("a.b"), natslease.ConfigError),
        (lambda f: f.task("job_1", ""), natslease.ConfigError),
        (lambda f: f.join("moths", info={"a": 1}), TypeError),
        (lambda f: f.join(Identity("a\n")), natslease.ConfigError),
        (lambda f: f.sweep("job_*", keep="job_1"), TypeError),
        (lambda f: f.sweep(""), natslease.ConfigError),
    ],
)
def test_what_is_wrong_is_refused(
    site: Callable[..., tuple[Any, Any]], call: Callable[[Any], Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(site()[1])


def test_options_are_checked(face: Face, nats_url: str) -> None:
    client = face.client(nats_url)
    for options in ({"bucket": "a.b"}, {"heartbeat": 100.0}, {"keep": 60.0}):
        with pytest.raises(natslease.ConfigError, match=next(iter(options))):
            face.fleet(client, **options)


def test_an_outage_is_no_answer(face: Face) -> None:
    down = face.fleet(face.client("nats://127.0.0.1:1", timeout=2.0))
    for ask in (down.workers, lambda: down.holders("job_1"), lambda: down.task("job_1", "1")):
        with pytest.raises(natslease.Unavailable):
            ask()


def test_sweep(site: Callable[..., tuple[Any, Any]]) -> None:
    client, fleet = site()
    for i in range(1, 5):
        client.queue(f"job_{i}").ensure()
    assert fleet.sweep("job_*").orphans == []  # they are young
    report = fleet.sweep("job_*", keep=["job_2"], min_age=0)
    assert [info.name for info in report.orphans] == ["job_1", "job_3", "job_4"]
    assert (report.deleted, report.more) == ([], False)
    report = fleet.sweep(
        "job_*",
        keep=lambda info: info.name in ("job_1", "job_2"),
        min_age=0,
        limit=1,
        dry_run=False,
    )
    assert (report.deleted, report.failed, report.more) == (["job_3"], {}, True)
    assert [info.name for info in client.streams()] == ["job_1", "job_2", "job_4"]


def test_each_reserve_and_settling_is_a_log_line(
    site: Callable[..., tuple[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "natslease")
    client, fleet = site()
    queue = client.queue("job_1", ack_wait=30)
    queue.ensure()
    publish(queue, 2)
    with fleet.join(GPU):
        done, failed = queue.reserve(2, wait=5)
        done.ack()
        failed.nak(reason="no image")
        fleet.flush()
        client.ping()
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("natslease")]
    for what in ("reserved 2", "acked 1", "failed 1"):
        (line,) = [line for line in lines if line.startswith(what)]
        assert "job_1" in line
        assert str(GPU) in line
        assert "tasks" in line
    assert any("no image" in line for line in lines)


def test_a_forked_child_is_not_the_worker(nats_url: str) -> None:
    client = natslease.Client(nats_url, timeout=10.0)
    fleet = Fleet(client)
    queue = client.queue("job_1", ack_wait=30)
    queue.ensure()
    publish(queue, 2)
    with fleet.join(GPU) as worker:

        def work() -> tuple[str, int, int]:
            try:
                worker.check()
            except natslease.ConfigError as error:
                said = str(error)
            with fleet.join(Identity(GPU.service, GPU.host, "1")) as own:
                return said, own.epoch, len(queue.reserve(1, wait=5))

        said, epoch, taken = in_child(work)
        assert "forked" in said
        assert (epoch > worker.epoch, taken) == (True, 1)
        worker.check()
        assert len(queue.reserve(1, wait=5)) == 1
        assert {(w.worker.slot, w.status) for w in fleet.workers()} == {
            ("0", "online"),
            ("1", "offline"),
        }
    client.close()


def test_identities() -> None:
    assert Identity("moths").host == default_host()
    assert default_host() == f"{os.uname().nodename}~{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116
    odd = Identity("a@b (c/d)", "node", "1/2")
    assert str(GPU) == "moths (v2)@node.example/0"
    assert Identity.parse(str(GPU)) == GPU
    assert pickle.loads(pickle.dumps(odd)) == odd
    assert len({GPU, Identity("moths (v2)", "node.example", "0")}) == 1
    for wrong in ("", "a", "a@b", "@b/c", "a@/c", "a@b/"):
        with pytest.raises(natslease.ConfigError):
            Identity.parse(wrong)
    for service in ("", None):
        with pytest.raises((natslease.ConfigError, TypeError)):
            Identity(service)  # type: ignore[arg-type]


def test_a_process_that_ends_without_leaving_is_not_fenced(nats_url: str) -> None:
    script = """
import sys
import natslease
from natslease.fleet import Fleet
fleet = Fleet(natslease.Client(sys.argv[1]))
worker = fleet.join("moths")
print(worker.epoch)
import os; os._exit(0)
"""
    epochs = [int(python(script, nats_url)) for _ in range(6)]
    assert sorted(set(epochs)) == epochs
    fleet = Fleet(natslease.Client(nats_url))
    assert fleet.register(Identity("moths")).fenced is None


def test_the_fleet_is_there_without_asyncio() -> None:
    python("import sys, natslease.fleet; assert 'asyncio' not in sys.modules")
