"""What users' type checkers see of natslease."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What is made for packages whose own types are not complete.
INCOMPLETE = ("natslease.contrib.", "natslease.worker.", "natslease.cli.")


def pyright(*arguments: str) -> Any:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pyright",
            f"--pythonpath={sys.executable}",
            "--outputjson",
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(300)
def test_a_users_program_in_pyright() -> None:
    """mypy looks at it when everything else is looked at: `make lint`."""
    found = pyright(str(Path(__file__).with_name("sample.py")))
    assert found["summary"]["filesAnalyzed"] == 1
    assert found["generalDiagnostics"] == []


@pytest.mark.timeout(300)
def test_every_public_name_has_a_type() -> None:
    found = pyright("--ignoreexternal", "--verifytypes", "natslease")["typeCompleteness"]
    public = [s for s in found["symbols"] if not s["name"].startswith(INCOMPLETE)]
    assert len(public) > 100
    problems = [
        (symbol["name"], [said["message"] for said in symbol["diagnostics"]])
        for symbol in public
        if symbol["isExported"] and (symbol["isTypeAmbiguous"] or not symbol["isTypeKnown"])
    ]
    assert problems == []
