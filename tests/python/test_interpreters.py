"""Where the extension cannot work it says so, before it is tried."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import natslease
import pythons
from children import python

SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters          # from Python 3.13
    number = interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    number = interpreters.create(isolated=False)

code = '''
import sys
sys.path[:] = {path}
import natslease, warnings
try:
    natslease.Client("nats://localhost:1")
except ImportError as error:
    print(type(error).__name__, error)
'''.format(path=sys.path)
interpreters.run_string(number, code)
interpreters.destroy(number)
import natslease
natslease.Client("nats://localhost:1").stats()  # the main one works on
print("main")
"""


@pytest.mark.parametrize("minor", range(pythons.OLDEST[1], pythons.NEWEST[1] + 1))
def test_a_subinterpreter_is_refused(minor: int) -> None:
    interpreter = next((i for i in pythons.find() if i.version[1] == minor), None)
    if interpreter is None:
        pytest.skip(f"CPython 3.{minor} is not on this machine")
    path = str(Path(natslease.__path__[0]).parent)
    done = subprocess.run(
        [interpreter.executable, "-W", "ignore", "-c", SUBINTERPRETER],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    refused, main = done.stdout.splitlines()
    assert refused.startswith("NotLoaded natslease works in the main interpreter only")
    assert "WSGIApplicationGroup %{GLOBAL}" in refused
    assert main == "main"


@pytest.mark.parametrize(
    ("pretended", "told"),
    [
        ("sys.abiflags = 't'", "this is a free-threaded build of Python"),
        ("sys.implementation.name = 'pypy'", "natslease needs CPython: this is pypy"),
    ],
)
def test_other_interpreters_are_refused(pretended: str, told: str) -> None:
    """Pretended: none of these is at hand."""
    script = f"""
import sys
{pretended}
import natslease
try:
    natslease.Client("nats://localhost:1")
except ImportError as error:
    assert isinstance(error, natslease.NotLoaded)
    assert error.outcome == "not_sent"
    print(error)
"""
    assert told in python(script)
