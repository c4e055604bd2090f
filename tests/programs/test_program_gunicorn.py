"""gunicorn --preload: the workers of an application that has used its queue before they fork."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from natslease.testing import Server
from program import Program
from web import address, ask, ask_again, ask_until
from work import await_processes, check_account, pids, processes_of, reports

HERE = Path(__file__).parent
TOOLS = HERE.parent / "tools"
KINDS = {
    "sync": ["--workers=3", "wsgi_app:app"],
    "gthread": ["--workers=3", "--threads=4", "wsgi_app:app"],
    "uvicorn_worker.UvicornWorker": ["--workers=3", "asgi_app:app"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_gunicorn_preload(kind: str, nats_server: Server) -> None:
    command = ["gunicorn", "--config=gunicorn_hooks.py", "--bind=127.0.0.1:0"]
    environment = {"NATS_URL": nats_server.url, "PYTHONPATH": str(TOOLS)}
    with Program(
        *command, f"--worker-class={kind}", *KINDS[kind], cwd=HERE, env=environment
    ) as master:
        url = address(master, "Listening at:")
        master.await_output("Booting worker", 3)
        before = processes_of(nats_server)

        done = ask_until(url, lambda workers: len(workers) == 3)
        first = pids(done)
        processes = await_processes(nats_server, {master.pid, *first})
        assert processes[master.pid] == before[master.pid]

        master.send(signal.SIGHUP)
        again = ask_again if "uvicorn" in kind else ask
        done += ask_until(url, lambda workers: len(workers) == 3 and not workers & first, again)
        second = pids(done) - first
        processes = await_processes(nats_server, {master.pid, *second})
        assert processes[master.pid] == before[master.pid]

        assert master.end() == 0
        its_own = reports(master.output)
        assert [one["pid"] for one in its_own] == [master.pid] * 3, master.output
        check_account(nats_server, done + its_own)
