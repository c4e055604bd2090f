"""The processes of the sides, as the benchmark speaks to them."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OUTPUT = ROOT / "build" / "bench"
NATSGO = OUTPUT / "natsgo"


class Speaker:
    """A process that obeys one JSON command a line."""

    def __init__(self, *command: str | Path, **options: Any) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, op: str, stream: str, n: int = 0, count: int = 0, payload: str = "") -> Any:
        """Has a command carried out, and returns the answer.

        Raises:
            RuntimeError: the process has ended instead.
        """
        self.tell(op=op, stream=stream, n=n, count=count, payload=payload)
        return self.hear()

    def tell(self, **command: object) -> None:
        """Sends a command; its answer must be heard."""
        assert self._process.stdin is not None
        self._last = command
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def hear(self, timeout: float | None = None) -> Any:
        """The answer to the last command.

        Raises:
            RuntimeError: the process has ended instead.
            TimeoutError: there is none in that time (s).
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise TimeoutError(f"{self._process.args!r} does not answer {self._last!r:.200}")
        if line := self._process.stdout.readline():
            return json.loads(line)
        raise RuntimeError(f"{self._process.args!r} ended at {self._last!r:.200}")

    def kill(self) -> None:
        """Kills the process, and returns when it has ended."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """Ends the process, and returns when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def build_natsgo() -> None:
    """Builds the Go side. Go builds only what has changed."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["go", "build", "-o", NATSGO, f"./{(HERE / 'natsgo').relative_to(ROOT)}"],
        cwd=ROOT,
        check=True,
    )


def natsgo(url: str, *, old: bool = False) -> Speaker:
    """A process of nats.go, with its older interface or package jetstream."""
    return Speaker(NATSGO, url, "old" if old else "new")


def python(name: str, url: str, stream: str) -> Speaker:
    """A process of one of the Python sides."""
    return Speaker(sys.executable, HERE / "sides.py", name, url, stream)
