"""Celery's broker of files, with messages that are whole before anybody sees them.

kombu's own writes a message under the name by which readers find it: one that comes too early takes
an empty file, and the message is lost.
"""

from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    """Writes under a name that no queue has, and then gives it the queue's."""

    def _put(self, queue: str, payload: Any, **_: Any) -> None:
        name = f"{round(monotonic() * 1000)}_{uuid4()}"
        part = Path(self.data_folder_out, f"{name}.part")
        part.write_text(dumps(payload))
        part.replace(part.with_name(f"{name}.{queue}.msg"))


class Transport(filesystem.Transport):
    """To be named in ``CELERY_BROKER_TRANSPORT``."""

    Channel = Channel
