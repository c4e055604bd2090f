"""The template of docs/reference/permissions.md, as servers of tests are configured with it."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROLES = ("web", "worker", "janitor")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "permissions.md"
_VIOLATION = re.compile(r"(?:Publish|Subscription) Violation.*")
_TASKS, _DEAD = '"job.*.tasks"', '"dead.>"'


def template_text() -> str:
    """The template as the page has it."""
    found = re.search(
        r"^```\w*\n(authorization .*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    assert found
    return found[1]


def template() -> str:
    """The template's configuration; the password of each role is its name and ``-secret``."""
    return re.sub(r"\$(\w+)_PASSWORD", lambda m: f"{m[1].lower()}-secret", template_text())


def all_roles_in_one(tasks: list[str], dead: list[str]) -> str:
    """A configuration in which whoever says nothing of himself may do what some role may, and
    nothing else.

    Args:
        tasks: the subjects that stand for the template's ``job.*.tasks``.
        dead: those that stand for its ``dead.>``.
    """
    text = template()
    for mark, subjects in ((_TASKS, tasks), (_DEAD, dead)):
        assert mark in text
        text = text.replace(mark, " ".join(map(json.dumps, subjects)))
    publish, subscribe = (_subjects(text, kind) for kind in ("publish", "subscribe"))
    # One connection has one inbox prefix.
    subscribe = [re.sub(r"^_INBOX\.\w+\.>$", "_INBOX.>", subject) for subject in subscribe]
    return (
        "authorization { users: [\n"
        "  { user: suite, password: suite-secret, permissions: {\n"
        f"    publish: {json.dumps(sorted(set(publish)))}\n"
        f"    subscribe: {json.dumps(sorted(set(subscribe)))}\n"
        "  } }\n"
        "] }\n"
        "no_auth_user: suite\n"
    )


def violations(log: str) -> list[str]:
    """What a server has refused."""
    return _VIOLATION.findall(log)


def _subjects(text: str, kind: str) -> list[str]:
    text = re.sub(r"#.*", "", text)
    return [
        subject
        for block in re.findall(rf"\b{kind}: \[(.*?)\]", text, re.DOTALL)
        for subject in re.findall(r'"([^"]+)"', block)
    ]
