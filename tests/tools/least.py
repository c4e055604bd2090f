"""``pytest --permissions``: the tests' servers allow no more than the roles of the template need.

Servers that have users of their own are left as they are. What was refused is shown at the end, and
fails the test in which it happened; the tests that cannot run are skipped, each with its reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from natslease.testing import Server
from permissions import all_roles_in_one, violations

# What the tests call their queues. A subject of one part has no dot, so that "*" is none of $JS.
# Beside "*" and "a.b" a server 2.10 would refuse "a".
_TASKS = ["*", "*.b", "*.*.tasks"]
_DEAD = ["dead.>"]
_OWN = ("authorization", "accounts", "operator", "no_auth_user")

# By the beginning of the test's id, within tests/python.
CANNOT = {"test_docs.py": "the pages name queues, and dead letters, as they like"}


class Least:
    """The plugin."""

    def __init__(self) -> None:
        self._logs: list[Any] = []
        self._refused: dict[str, list[str]] = defaultdict(list)
        self._config = all_roles_in_one(_TASKS, _DEAD)
        self._install()

    def _install(self) -> None:
        write, start = Server._configuration, Server.start

        def configuration(server: Server) -> str:
            own = any(word in server.config for word in _OWN)
            return write(server) + ("" if own else self._config)

        def started(server: Server) -> None:
            start(server)
            if not any(word in server.config for word in _OWN):
                self._logs.append(server._parts.process)

        patch = pytest.MonkeyPatch()
        patch.setattr(Server, "_configuration", configuration)
        patch.setattr(Server, "start", started)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            name = item.nodeid.rpartition("/")[2]
            for beginning, reason in CANNOT.items():
                if name.startswith(beginning):
                    item.add_marker(pytest.mark.skip(reason=reason))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self._logs.clear()
        try:
            yield
        finally:
            refused = [line for process in self._logs for line in violations(process.log)]
            self._refused[item.nodeid] += refused
        if refused:
            pytest.fail("\n".join(["the server has refused:", *refused]))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        refused = {name: lines for name, lines in self._refused.items() if lines}
        terminalreporter.write_sep("=", "permissions")
        for name, lines in refused.items():
            terminalreporter.write_line(f"{name}\n  " + "\n  ".join(lines))
        for name, reason in CANNOT.items():
            terminalreporter.write_line(f"{name} cannot run: {reason}")
        terminalreporter.write_line(f"{len(refused)} tests met a refusal")
