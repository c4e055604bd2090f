"""Looks at a web process from within: how late its event loop is, and how many threads it has."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

INTERVAL = 0.05  # seconds between two looks at the loop
REPORT = 0.5  # and between two lines

Asgi = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


class Probe:
    """An ASGI application around another."""

    def __init__(self, application: Asgi, folder: Path) -> None:
        self._application = application
        self._folder = folder
        self._watching: asyncio.Task[None] | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        await self._application(scope, receive, send)

    async def _watch(self) -> None:
        with (self._folder / f"probe-{os.getpid()}.jsonl").open("a", buffering=1) as file:
            latest, due_line = 0.0, time.monotonic() + REPORT
            while True:
                due = time.monotonic() + INTERVAL
                await asyncio.sleep(INTERVAL)
                now = time.monotonic()
                latest = max(latest, now - due)
                if now >= due_line:
                    line = {
                        "at": time.time(),
                        "pid": os.getpid(),
                        "stall": latest,
                        "threads": threading.active_count(),
                    }
                    file.write(json.dumps(line) + "\n")
                    latest, due_line = 0.0, now + REPORT
