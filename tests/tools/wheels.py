"""Tries what `make wheels` has put into dist, each wheel where it is meant for.

The wheels are built a second time from the source distribution and must be the same to the byte.
This machine's is installed, with natslease-server, into an empty environment of every supported
CPython found, without Go and without a compiler on PATH, where the Python tests have to pass. The
one for aarch64 is run by qemu-user with Debian's arm64 Python.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import foreign
import pythons

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
MACHINES = ("x86_64", "aarch64")
MAX_WHEEL = 3_500_000
# What tests call of the system, and what those call; no compiler is among it.
_SYSTEM = ("mount", "rm", "sh", "sleep", "true", "unshare")
# These build things, with Go and a compiler.
_NOT_HERE = ("test_build_*", "test_example_cluster.py", "test_examples_go.py", "test_docs.py")


class Failed(Exception):
    """What did not work, in words."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epoch", required=True, help="the commit's time, as make wheels has it")
    parser.add_argument("--only", choices=("again", "pythons", "aarch64"))
    arguments = parser.parse_args()
    checks: dict[str, Callable[[], Iterator[str]]] = {
        "again": lambda: _build_again(arguments.epoch),
        "pythons": _run_tests,
        "aarch64": lambda: foreign.try_wheel(_one("natslease", "aarch64"), "aarch64"),
    }
    failed = passed = 0
    for name, check in checks.items():
        if arguments.only not in (None, name):
            continue
        try:
            for line in check():
                passed += 1
                print(f"{name}: {line}", flush=True)
        except (Failed, foreign.Failed) as error:
            failed += 1
            print(f"{name}: FAILED: {error}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def _one(distribution: str, machine: str) -> Path:
    found = sorted(DIST.glob(f"{distribution.replace('-', '_')}-*_{machine}.whl"))
    if len(found) != 1:
        raise Failed(f"{len(found)} wheels of {distribution} for {machine} in dist: make wheels")
    return found[0]


def _build_again(epoch: str) -> Iterator[str]:
    """Builds from the source distribution, in another folder and with an empty Go cache."""
    (source,) = DIST.glob("natslease-*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")
        (unpacked,) = Path(folder).glob("natslease-*")
        for machine in MACHINES:
            first = _one("natslease", machine)
            if first.stat().st_size > MAX_WHEEL:
                raise Failed(f"{first.name} has {first.stat().st_size:,} bytes")
            if not any(".dist-info/sboms/" in n for n in zipfile.ZipFile(first).namelist()):
                raise Failed(f"{first.name} has no SBOM")
            environment = {
                "SOURCE_DATE_EPOCH": epoch,
                "NATSLEASE_TARGET": f"{machine}-linux-gnu.2.17",
                "GOCACHE": f"{folder}/cache",
            }
            options = ("--no-build-isolation", "--no-deps", "--no-cache-dir")
            _run(
                [sys.executable, "-m", "pip", "wheel", "-q", *options, "-w", folder, unpacked],
                **environment,
            )
            second = Path(folder, first.name)
            if _digest(first) != _digest(second):
                raise Failed(
                    f"{first.name}: a second build has other bytes: {_differing(first, second)}"
                )
            yield f"{first.name}: {first.stat().st_size:,} bytes, the same when built again"


def _differing(first: Path, second: Path) -> str:
    with zipfile.ZipFile(first) as a, zipfile.ZipFile(second) as b:
        names = {i.filename: i.CRC for i in a.infolist()}
        others = {i.filename: i.CRC for i in b.infolist()}
    return ", ".join(n for n in sorted(names | others) if names.get(n) != others.get(n)) or "order"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run_tests() -> Iterator[str]:
    """Runs tests/python in an empty environment of each CPython."""
    machine = platform.machine()
    wheels = (_one("natslease", machine), _one("natslease-server", machine))
    locked = ROOT / "requirements" / "dev.txt"
    for interpreter in pythons.find():
        with _environment(interpreter) as programs:
            pip: list[str | Path] = [
                sys.executable,
                "-m",
                "pip",
                "--python",
                programs / "python",
                "install",
                "-q",
            ]
            _run([*pip, "-r", locked, *wheels])
            ignored = [f"--ignore-glob=*/{name}" for name in _NOT_HERE]
            pytest: list[str | Path] = [
                programs / "python",
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "--numprocesses=3",
            ]
            output = _run(
                [*pytest, *ignored, "tests/python"],
                PATH=str(programs),  # no Go, no compiler
                NATSLEASE_NATS_SERVER=str(programs / "nats-server"),
            )
            yield f"{interpreter}: {output.strip().splitlines()[-1]}"


@contextmanager
def _environment(interpreter: pythons.Interpreter) -> Iterator[Path]:
    """The programs of an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        _run([interpreter.executable, "-m", "venv", "--without-pip", f"{folder}/venv"])
        programs = Path(folder, "venv", "bin")
        for name in _SYSTEM:
            if found := shutil.which(name):
                (programs / name).symlink_to(found)
        yield programs


def _run(command: Sequence[str | Path], **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
