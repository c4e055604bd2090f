"""What all tests share.

The fixtures ``nats_server`` and ``nats_url`` come from natslease.testing.plugin. The tests run in
random order; the first lines of a run print its seed, and ``pytest --randomly-seed=N`` repeats
that order.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from natslease.testing import find_server

ROOT = Path(__file__).resolve().parents[2]


def pytest_report_header() -> str:
    """Which server the tests run against."""
    server = find_server()
    version = subprocess.run(
        [server, "--version"], capture_output=True, text=True, timeout=20, check=True
    )
    return f"{server}: {version.stdout.strip()}"


@pytest.fixture(scope="session")
def go() -> str:
    """The go command."""
    found = shutil.which("go")
    assert found, "these tests need Go"
    return found
