"""Makes every public operation under every fault, and holds the results to what is promised.

    run_faults.py                                  200 calls of each operation, in both APIs
    run_faults.py --short                          8 calls: what CI runs
    run_faults.py --fault "black hole" --face sync
    run_faults.py --keep FOLDER                    go on with a run whose results are there
    run_faults.py --table FILE                     write the page with the tables

A fault that needs mounts of its own (DNS hangs, disk full) takes root, or user namespaces, and
util-linux. The exit status is 1 when anything is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from faults import FAULTS, namespaced
from harness import FACES, Run, from_json, run, to_json
from judge import problems
from operations import LEASE_OPERATIONS, OPERATIONS, public_operations
from table import line, page

# Waves, and calls of each operation at the same time: a thread each, or all in one event loop.
LONG = {"sync": (50, 4), "async": (25, 8)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="8 calls of each operation")
    parser.add_argument(
        "--fault", choices=FAULTS, action="append", help="only this; may be repeated"
    )
    parser.add_argument("--face", choices=FACES, action="append", help="only this API")
    parser.add_argument("--keep", type=Path, help="a folder that has, and gets, results")
    parser.add_argument("--table", type=Path, help="write the page with the tables")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    faults, faces = options.fault or list(FAULTS), options.face or list(FACES)
    if options.here:
        waves, width = (2, 4) if options.short else LONG[faces[0]]
        options.here.write_text(json.dumps(to_json(run(faults[0], faces[0], waves, width))))
        return 0
    found = [f"no fault meets {name}" for name in public_operations() - covered()]
    print(*found, sep="\n", end="\n" if found else "")
    with tempfile.TemporaryDirectory() as folder:
        kept = options.keep or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        runs = []
        for fault in faults:
            for face in faces:
                result = elsewhere(fault, face, kept, short=options.short)
                runs.append(result)
                wrong = problems(result, short=options.short)
                print(line(result), *wrong, sep="\n  ! ", flush=True)
                found += wrong
        if options.table:
            options.table.write_text(page(runs, found))
    print(f"{len(found)} problems")
    return 1 if found else 0


def covered() -> set[str]:
    return {name.partition(",")[0] for name in (*OPERATIONS, *LEASE_OPERATIONS)}


def elsewhere(fault: str, face: str, folder: Path, *, short: bool) -> Run:
    """Runs in a process of its own, whose growth is its own."""
    answer = folder / f"{fault} {face}.json"
    if answer.exists():
        return from_json(json.loads(answer.read_text()))
    command = [sys.executable, __file__, "--fault", fault, "--face", face]
    command += ["--here", str(answer), *(["--short"] if short else [])]
    subprocess.run(namespaced(command) if FAULTS[fault].mounts else command, check=True)
    return from_json(json.loads(answer.read_text()))


if __name__ == "__main__":
    sys.exit(main())
