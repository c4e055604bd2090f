"""Asks the databases of known vulnerabilities about all that is pinned.

Where a database cannot be reached that is said, and is no failure: nothing is known then.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "build" / "bin"
# What is published, and what only builds and tests it.
MODULES = ("core/...", "pybind/...")


def main() -> int:
    problems = [*_go_sums(), *_go_vulnerabilities(), *_python_vulnerabilities()]
    for problem in problems:
        print(f"FOUND: {problem}")
    return 1 if problems else 0


def _run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def _go_sums() -> list[str]:
    done = _run(["go", "mod", "verify"])
    print(f"go mod verify: {(done.stdout or done.stderr).strip()}")
    return [] if done.returncode == 0 else ["the downloaded Go modules are not those of go.sum"]


def _go_vulnerabilities() -> list[str]:
    done = _run([PROGRAMS / "govulncheck", *(f"./{module}" for module in MODULES)])
    if "fetching vulnerabilities" in done.stderr:
        print(f"govulncheck: NOT CHECKED, its database is out of reach: {done.stderr.strip()}")
        return []
    print(f"govulncheck: {done.stdout.strip().splitlines()[-1]}")
    return [] if done.returncode == 0 else [done.stdout]


def _python_vulnerabilities() -> list[str]:
    found = []
    for locked in sorted((ROOT / "requirements").glob("*.txt")):
        options = ("--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off")
        audit = [sys.executable, "-m", "pip_audit", *options, "--requirement", str(locked)]
        done = _run(audit)
        try:
            packages = json.loads(done.stdout)["dependencies"]
        except ValueError:
            why = done.stderr.strip().splitlines()[-1:]
            print(f"pip-audit {locked.name}: NOT CHECKED: {''.join(why)}")
            continue
        skipped = [package["name"] for package in packages if "skip_reason" in package]
        said = f"{len(packages) - len(skipped)} packages checked"
        if skipped:
            said += f"; NOT CHECKED, the index does not tell of them: {', '.join(skipped)}"
        print(f"pip-audit {locked.name}: {said}")
        found += [
            f"{locked.name}: {package['name']} {package['version']}: {problem['id']}"
            for package in packages
            for problem in package.get("vulns", ())
        ]
    return found


if __name__ == "__main__":
    sys.exit(main())
