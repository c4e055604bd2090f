"""System checks of the settings. They do no I/O but look whether files are there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from natslease import ConfigError

from . import _settings
from ._clients import clients
from ._fleet import fleet_of, sweep_options

_FILES = ("CREDENTIALS_FILE", "TLS_CA", "TLS_CERT", "TLS_KEY")
_DEFAULT_TIMEOUT = 5.0
_FORMS = ("raw", "signed")


@checks.register("natslease")
def check_settings(**_: Any) -> list[CheckMessage]:
    """All of them."""
    try:
        aliases = list(_settings.aliases())
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="natslease.E001")]
    messages: list[CheckMessage] = []
    for alias in aliases:
        messages += _check_alias(alias)
    return [*messages, *_check_http()]


def _check_alias(alias: str) -> Iterator[CheckMessage]:
    try:
        options = _settings.options_of(alias)
    except ImproperlyConfigured as error:
        yield checks.Error(str(error), id="natslease.E001")
        return
    missing = [f"{key}: {problem}" for key in _FILES if (problem := _unreadable(options.get(key)))]
    if missing:
        yield checks.Error(
            f"NATSLEASE[{alias!r}] names files that cannot be read: {'; '.join(missing)}",
            hint="Every process that uses the queue reads them, as its own user.",
            id="natslease.E002",
        )
    try:
        _ = clients[alias]
    except ImproperlyConfigured as error:
        yield checks.Error(str(error), id="natslease.E001")
    else:
        yield from _check_fleet(alias, options)
    if any(_has_secret(url) for url in _urls(alias, options)):
        yield checks.Warning(
            f"NATSLEASE[{alias!r}]: a URL has a password or token in it",
            hint=(
                "URLs are shown and logged in many places. Use USER and PASSWORD, TOKEN or "
                "CREDENTIALS_FILE, from the environment."
            ),
            id="natslease.W003",
        )
    yield from _check_time(alias, options)


def _check_fleet(alias: str, options: Mapping[str, Any]) -> Iterator[CheckMessage]:
    if "SWEEP" in options:
        try:
            import_string(sweep_options(alias)["KEEP"])
        except (ImportError, ImproperlyConfigured) as error:
            yield checks.Error(f"NATSLEASE[{alias!r}]['SWEEP']: {error}", id="natslease.E001")
    try:
        fleet_of(alias)
    except (ImproperlyConfigured, ConfigError, TypeError) as error:
        yield checks.Error(f"NATSLEASE[{alias!r}]['FLEET']: {error}", id="natslease.E001")


def _check_time(alias: str, options: Mapping[str, Any]) -> Iterator[CheckMessage]:
    timeout, limit = options.get("TIMEOUT", _DEFAULT_TIMEOUT), _settings.http("REQUEST_TIMEOUT")
    wait = _settings.http("MAX_WAIT")
    if not all(isinstance(x, (int, float)) for x in (timeout, limit, wait)):
        return  # said elsewhere
    if timeout + wait >= limit:
        yield checks.Warning(
            f"NATSLEASE[{alias!r}]: TIMEOUT ({timeout:g} s) and NATSLEASE_HTTP['MAX_WAIT'] "
            f"({wait:g} s) are together not less than the web server's timeout for a request, "
            f"{limit:g} s (NATSLEASE_HTTP['REQUEST_TIMEOUT'])",
            hint=(
                "During an outage the web server would end requests, and gunicorn its processes, "
                "before they can answer 503. Make TIMEOUT smaller, or the server's timeout larger."
            ),
            id="natslease.W004",
        )


def _check_http() -> Iterator[CheckMessage]:
    found = getattr(settings, "NATSLEASE_HTTP", None) or {}
    unknown = sorted(set(found) - set(_settings.HTTP_DEFAULTS))
    if unknown:
        yield checks.Error(
            f"NATSLEASE_HTTP has no option {', '.join(map(repr, unknown))}; the options are "
            f"{', '.join(_settings.HTTP_DEFAULTS)}",
            id="natslease.E005",
        )
    for name in ("MAX_BATCH", "MAX_RESULTS", "MAX_WAITING", "THREADS"):
        value = _settings.http(name)
        if value is not None and not (type(value) is int and value > 0):
            yield checks.Error(
                f"NATSLEASE_HTTP[{name!r}] must be a positive number", id="natslease.E005"
            )
    for name in ("MAX_WAIT", "REQUEST_TIMEOUT"):
        value = _settings.http(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            yield checks.Error(f"NATSLEASE_HTTP[{name!r}] must be seconds", id="natslease.E005")
    accepted, emitted = _settings.http("ACCEPT_LEASES"), _settings.http("EMIT_LEASES")
    if isinstance(accepted, str) or not set(accepted) <= set(_FORMS) or emitted not in _FORMS:
        yield checks.Error(
            'NATSLEASE_HTTP: EMIT_LEASES must be "signed" or "raw", and ACCEPT_LEASES a list of '
            "them",
            id="natslease.E005",
        )
    elif emitted not in accepted:
        yield checks.Error(
            f"NATSLEASE_HTTP: leases are emitted as {emitted!r}, but not accepted as such",
            hint=f"Add {emitted!r} to ACCEPT_LEASES.",
            id="natslease.E006",
        )


def _unreadable(path: Any) -> str:
    if path is None:
        return ""
    try:
        with Path(os.fspath(path)).open("rb"):
            return ""
    except (OSError, TypeError, ValueError) as error:
        return str(error)


def _urls(alias: str, options: Mapping[str, Any]) -> list[str]:
    urls = options.get("URL")
    if urls is None and alias == _settings.DEFAULT_ALIAS:
        urls = getattr(settings, "NATS_URL", None)
    listed = urls.split(",") if isinstance(urls, str) else urls or []
    return [url for url in listed if isinstance(url, str)]


def _has_secret(url: str) -> bool:
    try:
        parts = urlsplit(url.strip() if "://" in url else f"nats://{url.strip()}")
    except ValueError:
        return False
    # A user without a password is a token.
    return bool(parts.password or parts.username)
