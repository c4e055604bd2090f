"""The settings ``NATSLEASE``, by alias, and ``NATSLEASE_HTTP``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

import natslease

DEFAULT_ALIAS = "default"
NAMES = ("NATSLEASE", "NATSLEASE_HTTP", "NATS_URL", "SECRET_KEY", "SECRET_KEY_FALLBACKS")

# The keyword arguments of a client, in capitals, and what only Django knows of.
CLIENT_OPTIONS = {
    "URL": "servers",
    **{
        name.upper(): name
        for name in inspect.signature(natslease.Client).parameters
        if name != "servers"
    },
}
OWN_OPTIONS = ("DEAD_LETTERS", "FLEET", "SWEEP")

HTTP_DEFAULTS: dict[str, Any] = {
    "ACCEPT_LEASES": ("signed",),
    "EMIT_LEASES": "signed",
    "MAX_BATCH": 1000,
    "MAX_RESULTS": 10_000,
    "MAX_WAIT": 5.0,
    "MAX_WAITING": None,
    "REQUEST_TIMEOUT": 30.0,
    "THREADS": None,
}


def aliases() -> Mapping[str, Any]:
    """The setting ``NATSLEASE``; where there is none, "default" comes from the environment."""
    found = getattr(settings, "NATSLEASE", None)
    if found is None:
        return {DEFAULT_ALIAS: {}}
    if not isinstance(found, Mapping):
        raise ImproperlyConfigured(
            'NATSLEASE must be a dictionary: {"default": {"URL": "nats://localhost:4222"}}'
        )
    return found


def options_of(alias: str) -> dict[str, Any]:
    """The options of an alias, as they stand in the settings.

    Raises:
        ImproperlyConfigured: there is no such alias, or what it has are no options.
    """
    known = aliases()
    if alias not in known:
        raise ImproperlyConfigured(
            f"NATSLEASE has no alias {alias!r}: it has {', '.join(sorted(known)) or 'none'}"
        )
    options = known[alias]
    if not isinstance(options, Mapping):
        raise ImproperlyConfigured(f"NATSLEASE[{alias!r}] must be a dictionary")
    unknown = sorted(set(options) - set(CLIENT_OPTIONS) - set(OWN_OPTIONS))
    if unknown:
        raise ImproperlyConfigured(
            f"NATSLEASE[{alias!r}] has no option {', '.join(map(repr, unknown))}; the options are "
            f"{', '.join(sorted([*CLIENT_OPTIONS, *OWN_OPTIONS]))}"
        )
    return dict(options)


def http(name: str) -> Any:
    """A value of the setting ``NATSLEASE_HTTP``, or its default."""
    return (getattr(settings, "NATSLEASE_HTTP", None) or {}).get(name, HTTP_DEFAULTS[name])


def on_change(forget: Any) -> None:
    """Has something forgotten when a test overrides one of the settings."""

    def changed(*, setting: str, **_: Any) -> None:
        if setting in NAMES:
            forget()

    setting_changed.connect(changed, weak=False)
