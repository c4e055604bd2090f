"""Finds the CPythons of this machine that the extension must work on, one of each minor version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OLDEST, NEWEST = (3, 10), (3, 13)

_PROBE = """
import json, platform, sys, sysconfig
print(json.dumps({
    "cpython": platform.python_implementation() == "CPython",
    "gil": not sysconfig.get_config_var("Py_GIL_DISABLED"),
    "version": sys.version_info[:3],
    "executable": sys.executable,
}))
"""


class Interpreter(NamedTuple):
    """A CPython that runs."""

    version: tuple[int, ...]
    executable: Path

    def __str__(self) -> str:
        return f"CPython {'.'.join(map(str, self.version))} ({self.executable})"


def find() -> list[Interpreter]:
    """The interpreters found, oldest first; the one that runs this is preferred."""
    found: dict[tuple[int, ...], Interpreter] = {}
    for candidate in _candidates():
        interpreter = _probe(candidate)
        if interpreter and OLDEST <= interpreter.version[:2] <= NEWEST:
            found.setdefault(interpreter.version[:2], interpreter)
    return [found[minor] for minor in sorted(found)]


def _candidates() -> Iterator[Path]:
    """Programs to try: on PATH, then where pyenv, uv and the manylinux images put theirs."""
    yield Path(sys.executable)
    names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
    for folder in os.get_exec_path():
        yield from (Path(folder, name) for name in [*names, "python3"])
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    data = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share"))
    for root in (pyenv / "versions", data / "uv/python", Path("/opt/python")):
        yield from sorted(root.glob("*/bin/python3"))


def _probe(program: Path) -> Interpreter | None:
    if not program.is_file():
        return None
    try:
        done = subprocess.run(
            [program, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=20, check=False
        )
    except OSError:
        return None
    if done.returncode != 0:
        return None  # a pyenv shim of a version that is not active, or Python 2
    facts = json.loads(done.stdout)
    if not (facts["cpython"] and facts["gil"]):
        return None
    return Interpreter(tuple(facts["version"]), Path(facts["executable"]))
