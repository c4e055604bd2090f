"""A Python of another kind of machine, from Debian's packages, run by qemu-user."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import debian
from natslease.testing import Server

SMOKE = Path(__file__).with_name("smoke.py")
_DEBIAN = {"aarch64": "arm64"}


class Failed(Exception):
    """What is missing, or did not work."""


def try_wheel(wheel: Path, machine: str) -> Iterator[str]:
    """Runs smoke.py on the wheel against a server of this machine."""
    try:
        qemu = shutil.which(f"qemu-{machine}")
        qemu = qemu or str(debian.program(f"qemu-{machine}-static", "qemu-user-static").path)
        root = debian.unpacked("python3", _DEBIAN[machine])
    except debian.Missing as error:
        raise Failed(str(error)) from None
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
