"""Fixtures for pytest, which finds this plugin by itself.

Each test that asks for a server gets one of its own, with nothing in it: it takes some 40 ms, and a
test may freeze, kill or fill it without regard to others. Tests that can share one make it
themselves:

```python
@pytest.fixture(scope="module")
def shared_server():
    with natslease.testing.Server() as server:
        yield server
```
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ._server import Server


@pytest.fixture
def nats_server() -> Iterator[Server]:
    """A running ``natslease.testing.Server`` of the test's own."""
    # Imported here: the plugin is loaded into every run of pytest in its environment.
    from ._server import Server

    with Server() as server:
        yield server


@pytest.fixture
def nats_url(nats_server: Server) -> str:
    """The URL of ``nats_server``."""
    return nats_server.url
