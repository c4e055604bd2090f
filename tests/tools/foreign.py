"""A Python of another kind of machine, from Debian's packages, run by qemu-user."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

from natslease.testing import Server

ROOT = Path(__file__).resolve().parents[2]
SMOKE = Path(__file__).with_name("smoke.py")
_DEBIAN = {"aarch64": "arm64"}


class Failed(Exception):
    """What is missing, or did not work."""


def try_wheel(wheel: Path, machine: str) -> Iterator[str]:
    """Runs smoke.py on the wheel against a server of this machine."""
    qemu = shutil.which(f"qemu-{machine}") or shutil.which(f"qemu-{machine}-static")
    if qemu is None:
        raise Failed("there is no qemu-user: apt-get install qemu-user")
    root = _system(_DEBIAN[machine])
    (python,) = (root / "usr/bin").glob("python3.[0-9]*[0-9]")
    packages = root / "wheel"
    shutil.rmtree(packages, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    with Server() as server:
        done = subprocess.run(
            [qemu, "-L", root, python, SMOKE, server.url, "emulated"],
            env={"PYTHONPATH": str(packages), "PYTHONHOME": str(root / "usr"), "TMPDIR": str(root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        raise Failed(f"{wheel.name}: status {done.returncode}\n{done.stdout}")
    where = f"{python.name} of Debian's {_DEBIAN[machine]}"
    yield f"{wheel.name}: ok but for fork, which qemu-user cannot, on {where}"


def _system(architecture: str) -> Path:
    """The folder with Debian's Python of that kind and all that it links; made once."""
    root = ROOT / "build" / f"debian-{architecture}"
    if (root / "complete").exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    # Apart from this machine's own packages, none of which count as installed.
    state = root / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    options = [
        f"-oAPT::Architecture={architecture}",
        f"-oAPT::Architectures={architecture}",
        f"-oDir::State::Lists={state}/lists",
        f"-oDir::State::status={state}/status",
        f"-oDir::Cache={state}/cache",
        "-oAPT::Sandbox::User=root",
        "-oDebug::NoLocking=1",
        "-qq",
    ]
    apt = shutil.which("apt-get")
    if apt is None:
        raise Failed("there is no apt-get to fetch Debian's packages with")
    _run([apt, *options, "update"])
    _run(
        [apt, *options, "--yes", "--download-only", "--no-install-recommends", "install", "python3"]
    )
    for package in sorted((state / "cache/archives").glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(root)])
    (root / "complete").touch()
    return root


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")
