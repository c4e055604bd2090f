"""Clients: options, environment, pickles, closing."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest

import natslease
from faces import Face
from natslease.testing import Server

SECRET = "s3cr3t-canary"


def max_deliver(queue: natslease.Queue) -> int:
    return queue.info().max_deliver


def token() -> str:
    return SECRET


def await_connections(server: Server, n: int) -> None:
    deadline = time.monotonic() + 10
    while (found := server.connz()["num_connections"]) != n:
        assert time.monotonic() < deadline, f"{found} connections, not {n}"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"servers": "foo://x"}, natslease.ConfigError, 'unknown scheme "foo"'),
        ({"servers": "nats://x:99999"}, natslease.ConfigError, "port"),
        ({"servers": []}, natslease.ConfigError, "servers"),
        ({"servers": ""}, natslease.ConfigError, "servers"),
        ({"servers": [1]}, TypeError, "servers: has int"),
        ({"timeout": 0}, natslease.ConfigError, "timeout: is 0"),
        ({"timeout": -1}, natslease.ConfigError, "timeout: is -1"),
        ({"timeout": "5"}, TypeError, "timeout: is str"),
        ({"connect_timeout": 1e-9}, natslease.ConfigError, "connect_timeout: is 1ns"),
        ({"max_in_flight": 0}, natslease.ConfigError, "max_in_flight: is 0"),
        ({"max_in_flight": -3}, natslease.ConfigError, "max_in_flight: is -3"),
        ({"max_in_flight": 1.5}, TypeError, "max_in_flight: is float"),
        (
            {"credentials_file": "/nowhere/x.creds"},
            natslease.ConfigError,
            "credentials_file.*/nowhere",
        ),
        ({"tls_cert": "/nowhere"}, natslease.ConfigError, "tls_key: is missing"),
        ({"tls_ca": "/nowhere"}, natslease.ConfigError, "tls_ca.*/nowhere"),
        ({"password": "x"}, natslease.ConfigError, "(?i)user"),
        ({"user": "u", "password": "p", "token": "t"}, natslease.ConfigError, "token"),
        ({"nkey_seed": "SUxxx"}, natslease.ConfigError, "nkey_seed"),
        ({"inbox_prefix": "a.>"}, natslease.ConfigError, "inbox_prefix"),
        ({"domain": "a.b"}, natslease.ConfigError, "domain"),
        ({"name": "a\nb"}, natslease.ConfigError, "name"),
        ({"name": 5}, TypeError, "name: is int"),
    ],
    ids=lambda v: str(v)[:40] if isinstance(v, dict) else "",
)
def test_bad_options_are_named(
    face: Face, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        face.client(**options)


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(natslease.ConfigError) as raised:
        natslease.Client("foo://x", domain="a b", tls_cert="/nowhere")
    for option in ("servers", "domain", "tls_key"):
        assert option in str(raised.value).lower()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"stream": ""}, natslease.ConfigError, "stream: is empty"),
        ({"stream": "a b"}, natslease.ConfigError, "stream.*spaces"),
        ({"stream": "a.b"}, natslease.ConfigError, "stream"),
        ({"stream": "a", "subject": "a.*"}, natslease.ConfigError, "subject.*wildcard"),
        ({"stream": "a", "subject": ""}, natslease.ConfigError, "subject: is empty"),
        ({"stream": "a", "consumer": "a>"}, natslease.ConfigError, "consumer.*wildcard"),
        ({"stream": "a", "ack_wait": 0}, natslease.ConfigError, "ack_wait: is 0"),
        ({"stream": "a", "max_deliver": 0}, natslease.ConfigError, "max_deliver: is 0"),
        ({"stream": "a", "max_deliver": -2}, natslease.ConfigError, "max_deliver: is -2"),
        ({"stream": "a", "replicas": 6}, natslease.ConfigError, "replicas: is 6"),
        ({"stream": "a", "storage": "tape"}, natslease.ConfigError, "storage"),
        ({"stream": "a", "retention": "x"}, natslease.ConfigError, "retention"),
        ({"stream": 5}, TypeError, "stream: is int"),
    ],
    ids=lambda v: str(v)[:40] if isinstance(v, dict) else "",
)
def test_bad_queue_options_are_named(
    face: Face, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        face.client().queue(**options)


def test_options_come_from_the_environment(
    face: Face, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = natslease.Client if face.name == "sync" else natslease.AsyncClient
    monkeypatch.setenv("NATS_URL", f"nats://127.0.0.1:1,{nats_url}")
    monkeypatch.setenv("NATS_TIMEOUT", "3.5")
    client = face.wrap(kind.from_env(name="from env"))
    assert client.ping() > 0
    assert client.stats().server == nats_url
    client.close()
    monkeypatch.setenv("NATS_TIMEOUT", "soon")
    with pytest.raises(natslease.ConfigError, match="NATS_TIMEOUT: is 'soon'"):
        kind.from_env()
    with pytest.raises(natslease.ConfigError, match="credentials_file"):
        kind.from_env({"NATS_CREDS": "/nowhere"})


def test_authentication() -> None:
    config = f'authorization {{ user: "u", password: "{SECRET}" }}'
    with Server(config=config) as server:
        with natslease.Client(server.url, user="u", password=SECRET) as client:
            client.ping()
        with natslease.Client(server.url, user="u", password=token) as client:
            client.ping()
        with natslease.Client(server.url.replace("//", f"//u:{SECRET}@")) as client:
            client.ping()
            assert SECRET not in repr(client) + str(client.stats())
        with (
            natslease.Client(server.url, user="u", password="wrong-canary") as client,
            pytest.raises(natslease.AuthenticationFailed) as raised,
        ):
            client.ping()
        assert raised.value.outcome == "not_sent"
        assert not isinstance(raised.value, OSError)
        assert "canary" not in str(raised.value) + raised.value.explain()


def test_closing(face: Face, nats_url: str) -> None:
    client = face.client(nats_url)
    queue = client.queue("tasks")
    queue.ensure()
    with client:
        client.ping()
    client.close()
    assert "closed" in repr(client)
    for call in (client.ping, queue.info, client.stats, lambda: client.queue("x")):
        with pytest.raises(natslease.ClientClosed) as raised:
            call()
        assert raised.value.outcome == "not_sent"


def test_closing_one_leaves_the_others(face: Face, nats_server: Server) -> None:
    a, b = face.client(nats_server.url), face.client(nats_server.url)
    a.ping()
    b.ping()
    a.close()
    b.ping()
    assert b.stats().sessions_opened == 1


def test_a_client_that_nobody_uses_is_closed(nats_server: Server) -> None:
    queue = natslease.Client(nats_server.url).queue("tasks")
    queue.ensure()
    assert nats_server.connz()["num_connections"] == 1
    del queue
    gc.collect()
    await_connections(nats_server, 0)


def test_a_client_outlives_an_outage_of_its_server(face: Face, nats_server: Server) -> None:
    client = face.client(nats_server.url)
    queue = client.queue("tasks")
    queue.ensure()
    queue.publish([b"x"])
    nats_server.restart()
    with suppress(natslease.Unavailable):  # or it knows already
        client.ping()
    assert [lease.data for lease in queue.reserve(1, wait=2)] == [b"x"]
    assert client.stats().sessions_opened == 2


def test_the_name_that_the_server_shows(nats_server: Server) -> None:
    with natslease.Client(nats_server.url) as client:
        client.ping()
        (connection,) = nats_server.connz()["connections"]
        program, host, pid = connection["name"].rsplit(" ", 2)
        assert (host, pid) == (os.uname().nodename, str(os.getpid()))
        assert program
    with natslease.Client(nats_server.url, name="my worker") as client:
        client.ping()
        names = [c["name"] for c in nats_server.connz()["connections"]]
        assert "my worker" in names


class TestPickle:
    @pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
    def test_clients_and_queues_travel_as_their_options(self, nats_url: str, method: str) -> None:
        queue = natslease.Client(nats_url, timeout=3).queue("tasks", max_deliver=2)
        queue.ensure()
        assert pickle.loads(pickle.dumps(queue)).info().max_deliver == 2
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(max_deliver, (queue,)) == 2
        assert queue.info().max_deliver == 2

    def test_a_lease_does_not_travel(self, nats_url: str) -> None:
        queue = natslease.Client(nats_url).queue("tasks")
        queue.ensure()
        queue.publish([b"x"])
        with pytest.raises(TypeError, match="ack_subject"):
            pickle.dumps(queue.reserve(1))

    @pytest.mark.parametrize(
        "options",
        [
            {"user": "u", "password": SECRET},
            {"token": SECRET},
            {"servers": f"nats://u:{SECRET}@localhost"},
            {"servers": f"nats://{SECRET}@localhost"},
        ],
        ids=["password", "token", "URL", "URL with token"],
    )
    def test_a_secret_does_not_travel(self, options: dict[str, Any]) -> None:
        client = natslease.Client(**options)
        for value in (client, client.queue("tasks")):
            with pytest.raises(natslease.ConfigError, match="from_env") as raised:
                pickle.dumps(value)
            assert SECRET not in str(raised.value)

    def test_copies_share_the_connection(self, nats_server: Server) -> None:
        """Within a process even a literal secret goes along."""
        client = natslease.Client(nats_server.url, token=SECRET)
        queue = client.queue("tasks")
        queue.ensure()
        for copied in (copy.copy(queue), copy.deepcopy(queue), copy.deepcopy([client])[0]):
            assert copied is not queue
            other: Any = copied if isinstance(copied, natslease.Client) else copied._client
            other.ping()
            assert other._options["token"] == SECRET
            assert other.stats().sessions_opened == 1
            if other is not client:
                other.close()
        client.ping()
        assert nats_server.varz()["total_connections"] == 1

    def test_copies_of_the_environments_client_are_pickled(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NATS_TOKEN", SECRET)
        pickled = pickle.dumps(copy.deepcopy(natslease.Client.from_env()))
        assert SECRET.encode() not in pickled

    def test_a_function_travels(self) -> None:
        client = natslease.Client(token=token)
        pickled = pickle.dumps(client)
        assert SECRET.encode() not in pickled
        assert pickle.loads(pickled)._options["token"] is token

    def test_the_environment_travels_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NATS_TOKEN", SECRET)
        pickled = pickle.dumps(natslease.Client.from_env())
        assert SECRET.encode() not in pickled
        assert pickle.loads(pickled)._options["token"] == SECRET


def test_importing_starts_nothing() -> None:
    script = """
import sys, threading
import natslease
for name in ("asyncio", "json", "logging", "typing", "natslease._natslease"):
    assert name not in sys.modules, name
assert len(open("/proc/self/stat").read().rsplit(")", 1)[1].split()) > 17
assert int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[17]) == 1  # threads
natslease.Client()
assert "asyncio" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_logs_go_to_python(nats_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "natslease")
    with natslease.Client(nats_server.url, name="logs") as client:
        client.ping()
        nats_server.restart()
        with suppress(natslease.Unavailable):  # or it knows already
            client.ping()
        client.ping()
    assert [r for r in caplog.records if r.levelname == "WARNING" and "lost" in r.message]
    connected = [r for r in caplog.records if r.message.startswith("connected ")]
    attributes = [(vars(r)["natslease_generation"], vars(r)["natslease_server"]) for r in connected]
    assert attributes == [(1, nats_server.url), (2, nats_server.url)]


def test_a_hundred_threads_share_a_client(nats_server: Server) -> None:
    with natslease.Client(nats_server.url) as client:
        queue = client.queue("tasks")
        queue.ensure()
        n, threads = 20, 100
        queue.publish([b"%d" % i for i in range(n * threads)])
        seen: list[bytes] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                done = 0
                while done < n:
                    for lease in queue.reserve(n - done, wait=2):
                        with lease:
                            seen.append(lease.data)
                            done += 1
            except BaseException as error:  # noqa: BLE001 (shown by the test)
                failures.append(error)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not failures
        assert len(seen) == len(set(seen)) == n * threads
        assert nats_server.connz()["num_connections"] == 1


def test_errors_can_be_pickled() -> None:
    kinds = [
        value for value in vars(natslease).values()
        if isinstance(value, type) and issubclass(value, natslease.Error)
    ]  # fmt: skip
    assert len(kinds) > 20
    for kind in kinds:
        error = cast("Callable[..., natslease.Error]", kind)(
            "text", code="c", outcome="unknown", operation="ack", retry_after=1.5, explanation="why"
        )
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert (str(again), again.code, again.outcome) == ("text", "c", "unknown")
        assert (again.operation, again.retry_after, again.explain()) == ("ack", 1.5, "why")


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (natslease.ConfigError, ValueError),
        (natslease.InvalidLease, ValueError),
        (natslease.PayloadTooLarge, ValueError),
        (natslease.ConnectFailed, ConnectionError),
        (natslease.Saturated, natslease.Unavailable),
        (natslease.DeadlineExceeded, TimeoutError),
        (natslease.StorageFull, OSError),
        (natslease.QueueNotFound, LookupError),
        (natslease.NotLoaded, ImportError),
    ],
)
def test_errors_are_what_python_knows(kind: type[Exception], base: type[Exception]) -> None:
    assert issubclass(kind, base)


@pytest.mark.parametrize("kind", [natslease.PermissionDenied, natslease.AuthenticationFailed])
def test_a_wrong_password_is_no_outage(kind: type[Exception]) -> None:
    assert not issubclass(kind, OSError)
