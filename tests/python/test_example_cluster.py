"""The cluster of examples/cluster loses nothing while its leader dies and all of it is upgraded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from natslease.testing import find_server

ROOT = Path(__file__).resolve().parents[2]
NEWEST = ROOT / "build" / "bin" / "nats-server"


@pytest.mark.timeout(240)
def test_nothing_is_lost_while_the_leader_dies_and_all_are_upgraded() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "cluster", "--upgrade-from", find_server()],
        env={**os.environ, "NATSLEASE_NATS_SERVER": str(NEWEST)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    old, new = (_version(server) for server in (find_server(), NEWEST))
    assert f"3 servers {old}; job_1 has 3 replicas" in done.stdout
    assert re.search(r"work goes on without (nats-\d), led by (?!\1)nats-\d", done.stdout)
    assert len(re.findall(rf"nats-\d is replaced by {new}", done.stdout)) == 3
    (accepted,) = re.findall(r"^accepted +([\d,]+),", done.stdout, re.MULTILINE)
    (worked,) = re.findall(r"^done +([\d,]+) by 4 workers", done.stdout, re.MULTILINE)
    assert accepted == worked != "0"


def _version(server: Path) -> str:
    shown = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    return shown.stdout.strip().rpartition("v")[2]
