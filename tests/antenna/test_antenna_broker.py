"""The broker of files of examples/antenna: no message is taken before it is whole."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

from kombu import Connection

from antenna.broker import Transport

MESSAGES = 50


def test_messages_are_whole_when_somebody_sees_them(tmp_path: Path) -> None:
    folders = {f"data_folder_{way}": str(tmp_path) for way in ("in", "out")}
    options = {**folders, "control_folder": str(tmp_path / "control")}
    sent = ["x" * 1_000_000 + str(i) for i in range(MESSAGES)]

    def connection() -> Connection:
        return Connection("filesystem://", transport=Transport, transport_options=options)

    def write() -> None:
        with connection() as one, one.SimpleQueue("results") as queue:
            for text in sent:
                queue.put(text)

    with connection() as another, another.SimpleQueue("results") as queue:
        writer = threading.Thread(target=write)
        writer.start()
        got: list[str] = []
        deadline = time.monotonic() + 30
        while len(got) < MESSAGES and time.monotonic() < deadline:
            with suppress(queue.Empty):
                message = queue.get(block=False)
                got.append(message.payload)
                message.ack()
        writer.join()
    assert sorted(got) == sorted(sent)
