"""What a process of a peer is told, and what the tasks tell that it works off."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

_VARIABLE = "NATSLEASE_PEERS_SETTING"
SIZE = 300  # bytes of a task
HELD = 1  # the number of the task that can be held


@dataclass(frozen=True)
class Setting:
    """Travels in the environment, to whatever programs a peer starts.

    Attributes:
        row: the name of the peer's row.
        url: of the broker.
        queue: the name of the queue, which is this process's alone.
        fifo: where the tasks tell that they were taken.
        lease: seconds that a worker has for a task; 0: what the peer does by default.
        timeout: seconds that a call may take, by the peer's own options; 0: their defaults.
        batch: how many tasks a worker takes at once.
        hold: whether the first worker that takes the task number HELD never ends with it.
        mark: what the tasks of a worker call it.
    """

    row: str
    url: str
    queue: str
    fifo: str
    lease: int = 0
    timeout: int = 0
    batch: int = 1
    hold: bool = False
    mark: int = 0

    def environment(self) -> dict[str, str]:
        """What a process needs to have it."""
        return {**os.environ, _VARIABLE: json.dumps(asdict(self))}

    @classmethod
    @cache
    def here(cls) -> Setting:
        """This process's."""
        return cls(**json.loads(os.environ[_VARIABLE]))


def task(number: int) -> str:
    """A task of the application's shape, enqueued now."""
    url = "https://images.example.org/deployments/17/captures/2026/07/"
    made = {"id": number, "at": time.monotonic_ns(), "image_id": "7654321", "image_url": url}
    made["image_url"] = url + "x" * (SIZE - 4 - len(json.dumps(made))) + ".jpg"
    text = json.dumps(made)
    assert len(text) == SIZE
    return text


class Taken(NamedTuple):
    """That a task was taken: by which worker, which one, when it was enqueued, when taken (ns)."""

    mark: int
    number: int
    enqueued: int
    taken: int


_RECORD = struct.Struct("=4Q")


def handle(text: str) -> None:
    """What every peer's worker does with a task: it tells that it has it."""
    taken = time.monotonic_ns()
    made, setting = json.loads(text), Setting.here()
    os.write(_fifo(), _RECORD.pack(setting.mark, made["id"], made["at"], taken))
    if setting.hold and made["id"] == HELD and _is_first():
        time.sleep(3600)


@cache
def _fifo() -> int:
    return os.open(Setting.here().fifo, os.O_WRONLY)


def _is_first() -> bool:
    try:
        Path(f"{Setting.here().fifo}.held").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class Reader:
    """Reads what the tasks tell."""

    def __init__(self, fifo: str) -> None:
        # For writing as well: it has no end as long as this is open.
        self._fd = os.open(fifo, os.O_RDWR)

    def next(self, timeout: float) -> Taken | None:
        """The next task that was taken; None when there is none in that time (s)."""
        if not select.select([self._fd], [], [], timeout)[0]:
            return None
        return Taken(*_RECORD.unpack(os.read(self._fd, _RECORD.size)))

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
