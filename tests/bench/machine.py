"""What the benchmark was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from natslease.testing import Server

_PACKAGES = ("natslease", "nats-py", "natsrpy", "asgiref")


def cpu() -> str:
    """How many cores of what."""
    return f"{_cpu()}, {os.cpu_count()} cores"


def load() -> str:
    """The load averages."""
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


def describe(server: Server) -> dict[str, str]:
    """The machine, and the versions of what was measured."""
    goes = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Version}}", "github.com/nats-io/nats.go"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    go = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True)
    return {
        "cpu": cpu(),
        "load": load(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "go": go.stdout.strip().removeprefix("go"),
        "nats-server": str(server.varz()["version"]),
        "nats.go": goes.stdout.strip().removeprefix("v"),
        **{package: version(package) for package in _PACKAGES},
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()
