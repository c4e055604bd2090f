"""Checks what a wheel promises: its tags, size, one library, oldest glibc and the stable ABI."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import elf

MAX_SIZE = 8 * 2**20
OLDEST_GLIBC = (2, 17)


def main(wheel: Path) -> int:
    problems = []
    if "-cp310-abi3-manylinux_2_17_" not in wheel.name:
        problems.append(f"its tags are not cp310-abi3-manylinux_2_17: {wheel.name}")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
        if libraries != ["natslease/_natslease.abi3.so"]:
            problems.append(f"its libraries are {libraries}")
        for name in libraries:
            library = elf.describe(Path(archive.extract(name, folder)))
            print(f"{name}: {library}")
            if library.size > MAX_SIZE:
                problems.append(f"{name} is larger than {MAX_SIZE / 2**20:.0f} MiB")
            if not elf.LIBC.issuperset(library.needed):
                problems.append(f"{name} links more than libc")
            if library.glibc > OLDEST_GLIBC:
                problems.append(f"{name} needs a newer glibc than 2.17")
    for tool, *arguments in (("auditwheel", "show"), ("abi3audit", "--strict", "--summary")):
        done = subprocess.run(
            [Path(sys.executable).with_name(tool), *arguments, wheel],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(" ".join(done.stdout.split()))
        if done.returncode != 0:
            problems.append(f"{tool} failed")
    for problem in problems:
        print(f"{wheel.name}: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
