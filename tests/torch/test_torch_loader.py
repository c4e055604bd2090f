"""torch's DataLoader, with workers that reserve, in the Python that has torch."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from natslease.testing import Server
from program import Program
from work import Done, await_processes, check_account

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDERS = [ROOT / "python", ROOT / "tests" / "tools"]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_data_loader(method: str, nats_server: Server) -> None:
    program = Program(
        os.environ.get("TORCH_PYTHON", "/usr/bin/python3"),
        HERE / "loader.py",
        method,
        env={"NATS_URL": nats_server.url, "PYTHONPATH": os.pathsep.join(map(str, FOLDERS))},
    )

    def shown(n: int) -> Any:
        """What it shows, the n-th time; it then waits to be told to go on."""
        output = program.await_output("shown: ", n)
        return json.loads(output.split("shown: ")[n].splitlines()[0])

    with program:
        done: list[Done] = [shown(1)]
        before = await_processes(nats_server, {program.pid})
        program.send(signal.SIGUSR1)

        workers = set(shown(2))
        assert len(workers) == 4
        processes = await_processes(nats_server, {program.pid, *workers})
        assert before.items() <= processes.items()
        program.send(signal.SIGUSR1)
        assert set(shown(3)) == workers
        assert await_processes(nats_server, {program.pid, *workers}) == processes
        program.send(signal.SIGUSR1)

        done.append(shown(4))
        assert await_processes(nats_server, {program.pid}) == before
        program.send(signal.SIGUSR1)
        assert program.wait() == 0, program.output
        check_account(nats_server, done)
