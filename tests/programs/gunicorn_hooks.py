"""Configuration of gunicorn: its master uses the queue before it forks, between, and at its end."""

from __future__ import annotations

from preloaded import report

preload_app = True
# Of a shutdown, and of the workers that a reload replaces.
graceful_timeout = 20


def on_reload(_: object) -> None:
    report("reloaded")


def on_exit(_: object) -> None:
    report("exit")
