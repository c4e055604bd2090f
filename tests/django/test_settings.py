"""Clients by alias, and the system checks of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

import natslease
from certificates import Authority
from children import connections, in_child, python
from natslease.contrib.django import async_clients, clients
from natslease.contrib.django.checks import check_settings
from natslease.testing import Server


def test_a_client_by_alias(site: Any, nats_server: Server) -> None:
    client = clients["default"]
    assert clients["default"] is client
    assert client.ping() > 0
    assert client.stats().server == nats_server.url
    assert list(clients) == ["default"]
    assert len(clients) == 1
    assert "default" in clients
    assert "other" not in clients
    assert isinstance(async_clients["default"], natslease.AsyncClient)


def test_settings_that_are_overridden_make_another_client(site: Any) -> None:
    client = clients["default"]
    site.NATSLEASE = {"default": {"URL": "nats://127.0.0.1:1"}, "other": {"URL": "nats://x"}}
    assert clients["default"] is not client
    assert list(clients) == ["default", "other"]


def test_without_a_url_it_is_nats_url_then_the_environment(
    site: Any, nats_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    monkeypatch.setenv("NATS_TIMEOUT", "3")
    for setting in ({"default": {"NAME": "web"}}, None):
        site.NATSLEASE = setting
        site.NATS_URL = "nats://127.0.0.1:1"
        with pytest.raises(natslease.ConnectFailed, match=r"127\.0\.0\.1:1 "):
            clients["default"].ping()
        site.NATS_URL = None
        assert clients["default"].ping() > 0
    site.NATSLEASE = {"other": {}}
    with pytest.raises(ImproperlyConfigured, match=r"NATSLEASE\['other'\] has no URL"):
        _ = clients["other"]


def test_a_forked_child_has_its_own_connection(site: Any, nats_server: Server) -> None:
    clients["default"].ping()
    before = connections(nats_server)

    def in_the_child() -> int:
        clients["default"].ping()
        return len(connections(nats_server))

    assert len(before) == 1
    assert in_child(in_the_child) == 2


def test_nothing_is_loaded_or_opened_at_start(nats_server: Server) -> None:
    """What a process has after ``django.setup()`` and the checks."""
    script = """
import os, sys, threading
before = set(os.listdir("/proc/self/fd"))
import django
django.setup()
with open("/proc/self/maps") as maps:
    assert "_natslease.abi3.so" not in maps.read()
from django.core.management import call_command
call_command("check")
assert threading.active_count() == 1
print(len([f for f in os.listdir("/proc/self/fd") if f not in before
           and os.path.exists(f"/proc/self/fd/{f}")
           and os.readlink(f"/proc/self/fd/{f}").startswith("socket")]))
"""
    here = Path(__file__).parent
    environment = {
        "PYTHONPATH": f"{here}:{here.parents[1] / 'python'}",
        "DJANGO_SETTINGS_MODULE": "testsite.settings",
        "SITE_NATS_URL": nats_server.url,
    }
    output = python(script, env=environment)
    assert output.splitlines()[-1] == "0"
    assert connections(nats_server) == {}


def ids(site: Any, **options: Any) -> list[str]:
    site.NATSLEASE = {"default": {"URL": "nats://localhost", **options}}
    return [str(m.id).removeprefix("natslease.") for m in check_settings()]


def test_good_settings_pass_the_checks(site: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path).file
    assert ids(site) == []
    assert ids(site, URL=["nats://a", "tls://b:4222"], TIMEOUT=2, USER="u", PASSWORD="p") == []
    assert ids(site, TLS_CA=authority, DEAD_LETTERS="dead") == []
    site.NATSLEASE = None
    assert check_settings() == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"TIMEOUTS": 3}, "E001"),
        ({"TIMEOUT": -1}, "E001"),
        ({"TIMEOUT": "3"}, "E001"),
        ({"URL": "http://localhost"}, "E001"),
        ({"TLS_CERT": __file__}, "E001"),
        ({"CREDENTIALS_FILE": "/nowhere/x.creds"}, "E002"),
        ({"TLS_CA": "/nowhere/ca.pem"}, "E002"),
        ({"CREDENTIALS_FILE": 3}, "E002"),
        ({"URL": "nats://me:secret@localhost"}, "W003"),
        ({"URL": "nats://a,token@localhost"}, "W003"),
        ({"TIMEOUT": 25.0}, "W004"),
    ],
)
def test_bad_options_are_found(site: Any, options: dict[str, Any], expected: str) -> None:
    assert expected in ids(site, **options)
    for message in check_settings():
        assert isinstance(message, checks.Error if str(message.id)[10] == "E" else checks.Warning)
        assert "secret" not in message.msg
        assert "token@" not in message.msg


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"MAX_BATCHES": 3}, "E005"),
        ({"MAX_BATCH": 0}, "E005"),
        ({"MAX_WAITING": "many"}, "E005"),
        ({"MAX_WAIT": -1}, "E005"),
        ({"EMIT_LEASES": "plain"}, "E005"),
        ({"ACCEPT_LEASES": "signed"}, "E005"),
        ({"ACCEPT_LEASES": ["signed"], "EMIT_LEASES": "raw"}, "E006"),
        ({"REQUEST_TIMEOUT": 8}, "W004"),
    ],
)
def test_bad_http_options_are_found(site: Any, options: dict[str, Any], expected: str) -> None:
    site.NATSLEASE_HTTP = options
    assert ids(site) == [expected]


def test_settings_that_are_none(site: Any) -> None:
    for value in ("nats://localhost", {"default": "nats://localhost"}):
        site.NATSLEASE = value
        assert [m.id for m in check_settings()] == ["natslease.E001"]
        with pytest.raises(ImproperlyConfigured, match="must be a dictionary"):
            _ = clients["default"]
