"""What all tests share.

The fixtures ``nats_server`` and ``nats_url`` come from natslease.testing.plugin. The tests run in
random order; the first lines of a run print its seed, and ``pytest --randomly-seed=N`` repeats
that order.
"""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from faces import FACES, IN_MEMORY, Face, opened
from natslease.testing import find_server


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of these tests."""
    parser.addoption(
        "--permissions",
        action="store_true",
        help="the servers allow no more than docs/reference/permissions.md",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tests that run elsewhere find the same server."""
    os.environ["NATSLEASE_NATS_SERVER"] = str(find_server())
    if config.getoption("permissions"):
        from least import Least

        config.pluginmanager.register(Least())


def pytest_report_header() -> str:
    """Which server the tests run against."""
    server = find_server()
    version = subprocess.run(
        [server, "--version"], capture_output=True, text=True, timeout=20, check=True
    )
    return f"{server}: {version.stdout.strip()}"


@pytest.fixture(scope="session")
def go() -> str:
    """The go command."""
    found = shutil.which("go")
    assert found, "these tests need Go"
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test with a face on both APIs; one marked ``conformance`` on queues in memory, too,
    unless it asks for a server itself. ``NATSLEASE_REPEAT=200`` runs each so many times."""
    if (times := int(os.environ.get("NATSLEASE_REPEAT", "1"))) > 1:
        metafunc.fixturenames.append("repetition")
        metafunc.parametrize("repetition", range(times))
    if "face" not in metafunc.fixturenames:
        return
    asked = inspect.signature(metafunc.function).parameters
    in_memory = metafunc.definition.get_closest_marker("conformance") and not (
        {"nats_server", "nats_url"} & set(asked)
    )
    metafunc.parametrize("face", [*FACES, *(IN_MEMORY if in_memory else ())], indirect=True)


@pytest.fixture
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    """Makes clients. A test that uses it is run with the synchronous and the asynchronous API."""
    with opened(request.param) as face:
        yield face


@pytest.fixture
def client(face: Face, request: pytest.FixtureRequest) -> Any:
    """A client of the test's own server."""
    if face.memory is not None:
        return face.client(timeout=5.0)
    return face.client(request.getfixturevalue("nats_url"), timeout=5.0)


@pytest.fixture
def make_queue(client: Any) -> Callable[..., Any]:
    """Makes queues that exist: by its options, and how many tasks to publish."""

    def make(stream: str = "tasks", *, tasks: int = 0, **options: Any) -> Any:
        queue = client.queue(stream, **options)
        queue.ensure()
        if tasks:
            report = queue.publish([b"%d" % i for i in range(tasks)])
            assert len(report.accepted) == tasks
        return queue

    return make


@pytest.fixture
def queue(make_queue: Callable[..., Any]) -> Any:
    """A queue that exists and is empty."""
    return make_queue()
