"""Programs of Debian's packages: the machine's own, or else unpacked into build, for which nobody
has to install anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
_ELF = b"\x7fELF"
# In seconds, for each of the tools: where the network is closed some wait for ever.
_PATIENCE = 50.0


class Missing(Exception):
    """What is not there, and cannot be fetched."""


class Program(NamedTuple):
    """A program, and the environment to run it in."""

    path: Path
    environment: dict[str, str]


def program(name: str, package: str) -> Program:
    """The program of a package.

    Raises:
        Missing: in words for whoever runs the tests.
    """
    if own := shutil.which(name):
        return Program(Path(own), dict(os.environ))
    root = unpacked(package)
    for path in (root / "usr/bin" / name, root / "usr/lib" / name / name):
        if path.is_file() and path.read_bytes()[:4] == _ELF:  # launchers name absolute paths
            libraries = sorted({str(library.parent) for library in root.glob("usr/lib/**/*.so*")})
            return Program(path, {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)})
    raise Missing(f"Debian's {package} has no {name}")


def program_or_skip(name: str, package: str) -> Program:
    """The same, for a test that is skipped without it."""
    try:
        return program(name, package)
    except Missing as error:
        pytest.skip(str(error))


def unpacked(package: str, architecture: str | None = None) -> Path:
    """The folder with a package and what it needs: all of that for another architecture, for this
    machine's what it has not. Made once."""
    root = ROOT / "build" / f"debian-{architecture or 'own'}-{package}"
    if root.exists():
        return root
    apt = shutil.which("apt-get")
    if apt is None:
        raise Missing(f"there is neither {package} nor apt-get to fetch it with")
    root.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        state, made = Path(folder, "apt"), Path(folder, "root")
        for part in ("lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True)
        (state / "status").touch()
        options = [
            f"-oDir::State::Lists={state}/lists",
            f"-oDir::Cache={state}/cache",
            "-oAPT::Sandbox::User=root",
            "-oDebug::NoLocking=1",
            "-oAcquire::Retries=0",
            "-oAcquire::http::Timeout=10",
            "-oAcquire::https::Timeout=10",
            "-qq",
        ]
        if architecture is not None:  # nothing of this machine's counts as installed
            options += [
                f"-oAPT::Architecture={architecture}",
                f"-oAPT::Architectures={architecture}",
                f"-oDir::State::status={state}/status",
            ]
        _run([apt, *options, "update"])
        fetch = ["--yes", "--download-only", "--no-install-recommends", "install"]
        _run([apt, *options, *fetch, package])
        for archive in sorted((state / "cache/archives").glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(archive), str(made)])
        made.rename(root)
    return root


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{' '.join(command)}: not done after {_PATIENCE:.0f} s") from None
    if done.returncode:
        raise Missing(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")
