"""Adds to a wheel the list of the Go modules in its binary, as CycloneDX (PEP 770)."""

from __future__ import annotations

import os
from pathlib import Path

from .extension import run

# Names cyclonedx-gomod's program; without it wheels have no list. Only the wheels that are
# published need one.
TOOL_VARIABLE = "NATSLEASE_CYCLONEDX"


def write(binary: Path, destination: Path, *, version: str) -> bool:
    """Writes the list, which the binary itself holds; returns whether there is a tool for it."""
    tool = os.environ.get(TOOL_VARIABLE)
    if not tool:
        return False
    destination.parent.mkdir(parents=True, exist_ok=True)
    run(
        [
            tool,
            "bin",
            "-json",
            # Neither a time nor a random number: the same sources make the same bytes.
            "-noserial",
            "-notimestamp",
            "-std",
            f"-version={version}",
            f"-output={destination}",
            str(binary),
        ]
    )
    return True
