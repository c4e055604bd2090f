"""Worker processes of a test, and what they have done."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from program import Program

PROGRAM = Path(__file__).parent / "workprogram.py"


class Workers:
    """Starts workers that write into one journal."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self._folder = folder
        self._journal = folder / "journal"
        self._options = {"journal": str(self._journal), "worker": {}, **options}

    def start(self, **options: Any) -> Program:
        told = {**self._options, **options}
        return Program(sys.executable, PROGRAM, json.dumps(told), cwd=self._folder)

    def done(self) -> Counter[str]:
        """How often each task was finished by a handler."""
        return Counter(self._journal.read_text().split() if self._journal.exists() else [])
