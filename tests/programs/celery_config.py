"""Configuration of Celery: folders below the working directory are broker and results."""

from __future__ import annotations

broker_url = "filesystem://"
broker_transport_options = {
    "data_folder_in": "messages",
    "data_folder_out": "messages",
    "control_folder": "control",
    "polling_interval": 0.05,
}
result_backend = "file://results"
worker_prefetch_multiplier = 1
FOLDERS = ("messages", "control", "results")
