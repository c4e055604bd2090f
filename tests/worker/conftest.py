"""What the worker's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from taskserver import TaskServer


@pytest.fixture
def server() -> Iterator[TaskServer]:
    """A server that gives out tasks over HTTP."""
    with TaskServer() as server:
        yield server
