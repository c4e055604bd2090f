"""Runs smoke.py on every supported CPython of this machine.

Without arguments the extension of this checkout is tried; with a wheel, that wheel, installed in
an empty environment whose PATH has neither Go nor a C compiler.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pythons
from natslease.testing import Server

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "build" / "bin" / "nats-server"
SMOKE = Path(__file__).with_name("smoke.py")
_STRICT = ("-W", "error")
_INSTALL = ("install", "--quiet", "--no-index", "--no-compile")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, help="the wheel to install and try")
    wheel: Path | None = parser.parse_args().wheel
    failed = 0
    interpreters = pythons.find()
    with Server(binary=SERVER) as server:
        for interpreter in interpreters:
            began = time.monotonic()
            problem = _try(interpreter, server.url, wheel)
            failed += bool(problem)
            print(
                f"{interpreter}: {problem or 'works'}, {time.monotonic() - began:.1f} s",
                flush=True,
            )
    print(f"{len(interpreters) - failed} passed, {failed} failed")
    return 1 if failed or not interpreters else 0


def _try(interpreter: pythons.Interpreter, url: str, wheel: Path | None) -> str:
    """What went wrong, or an empty string."""
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            environment = {"PYTHONPATH": str(ROOT / "python")}
            return _run([interpreter.executable, *_STRICT, SMOKE, url], folder, environment)
        program = Path(folder, "venv", "bin", "python")
        return (
            _run([interpreter.executable, "-m", "venv", "--without-pip", "venv"], folder)
            # This environment's pip: the empty one needs none, and no index.
            or _run([sys.executable, "-m", "pip", "--python", program, *_INSTALL, wheel], folder)
            or _run([program, *_STRICT, SMOKE, url], folder)
        )


def _run(
    command: Sequence[str | Path], folder: str, environment: Mapping[str, str] | None = None
) -> str:
    """Runs a command that can find no other program; returns what went wrong, or nothing."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": folder, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return ""
    return f"exit status {done.returncode}\n{done.stdout}{done.stderr}"


if __name__ == "__main__":
    sys.exit(main())
