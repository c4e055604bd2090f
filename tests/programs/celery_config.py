"""Configuration of Celery: folders below the working directory are the broker.

kombu's file-system broker reads a message that is still being written, which ends the worker. So
messages are written elsewhere, and moved to where the worker looks when they are whole.
"""

from __future__ import annotations

from pathlib import Path

FOLDERS = ("written", "messages", "control")

broker_url = "filesystem://"
broker_transport_options = {
    "data_folder_out": "written",
    "data_folder_in": "messages",
    "control_folder": "control",
    "polling_interval": 0.05,
}
task_ignore_result = True
worker_prefetch_multiplier = 1


def deliver() -> None:
    """Moves what was sent to where the worker looks."""
    for message in Path("written").iterdir():
        message.rename(Path("messages", message.name))
