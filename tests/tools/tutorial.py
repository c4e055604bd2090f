"""Follows the tutorials word by word with what is in dist: without Go, and without a checkout.

`make test-tutorial` has built the wheels of this machine; what else they need comes from the
package index, in the versions of requirements/dev.txt.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import docrunner
from docpages import ROOT, PageFailed, name_of


def main() -> int:
    tutorials = sorted((ROOT / "docs" / "tutorial").glob("*.md"))
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        packages = Path(folder)
        _collect(packages)
        for page in tutorials:
            problem = _follow(page, packages)
            failed += bool(problem)
            print(problem or f"{name_of(page)}: followed to its end", flush=True)
    print(f"{len(tutorials) - failed} passed, {failed} failed")
    return 1 if failed or not tutorials else 0


def _follow(page: Path, packages: Path) -> str:
    """What went wrong, or an empty string."""
    try:
        docrunner.run(page, packages)
    except PageFailed as error:
        return str(error)
    return ""


def _collect(packages: Path) -> None:
    """Puts into a folder all that the tutorials install."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(packages)]
    wheels = [str(wheel) for wheel in (ROOT / "dist").glob(f"*_{platform.machine()}.whl")]
    locked = ["--constraint", str(ROOT / "requirements" / "dev.txt")]
    (natslease,) = (wheel for wheel in wheels if Path(wheel).name.startswith("natslease-"))
    (server,) = (wheel for wheel in wheels if Path(wheel).name.startswith("natslease_server-"))
    subprocess.run([*pip, *locked, server, f"{natslease}[cli]"], check=True)


if __name__ == "__main__":
    sys.exit(main())
