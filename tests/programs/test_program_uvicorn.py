"""uvicorn by itself: one process or several, which it spawns."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from natslease.testing import Server
from program import Program
from web import address, ask_again, ask_until
from work import await_processes, check_account, pids

HERE = Path(__file__).parent
TOOLS = HERE.parent / "tools"
ENDED = (0, -signal.SIGTERM)  # uvicorn ends by the signal that it got, when it has cleaned up


def uvicorn(server: Server, *options: str) -> Program:
    return Program(
        "uvicorn",
        "--port=0",
        *options,
        "asgi_app:app",
        cwd=HERE,
        env={"NATS_URL": server.url, "PYTHONPATH": str(TOOLS)},
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorn_alone(loop: str, nats_server: Server) -> None:
    with uvicorn(nats_server, f"--loop={loop}") as program:
        program.await_output("startup complete")
        done = ask_until(address(program, "running on"), lambda workers: workers == {program.pid})
        await_processes(nats_server, {program.pid})
        assert program.end() in ENDED
        check_account(nats_server, done)
    assert "Traceback" not in program.output


def test_uvicorn_workers(nats_server: Server) -> None:
    with uvicorn(nats_server, "--workers=3") as program:
        url = address(program, "running on")
        program.await_output("startup complete", 3)
        done = ask_until(url, lambda workers: len(workers) == 3)
        first = pids(done)
        # The parent has not loaded the application.
        await_processes(nats_server, first)
        program.send(signal.SIGHUP)
        done += ask_until(url, lambda workers: len(workers) == 3 and not workers & first, ask_again)
        await_processes(nats_server, pids(done) - first)
        assert program.end() in ENDED
        check_account(nats_server, done)
    assert "Traceback" not in program.output
