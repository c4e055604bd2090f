"""Workers and orphan queues of an alias, as its settings say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from natslease.fleet import Fleet, SweepReport

from . import _settings
from ._clients import clients

_SWEEP_OPTIONS = ("KEEP", "LIMIT", "MIN_AGE", "PATTERN")


def fleet_of(alias: str = _settings.DEFAULT_ALIAS) -> Fleet:
    """The fleet of an alias: ``"FLEET": {...}`` has its options, in capitals. No I/O."""
    options = _settings.options_of(alias).get("FLEET") or {}
    return Fleet(clients[alias], **{name.lower(): value for name, value in options.items()})


def sweep(
    alias: str = _settings.DEFAULT_ALIAS, *, dry_run: bool = True, timeout: float | None = None
) -> SweepReport:
    """Deletes the queues that nobody wants any more, or only finds them.

    ``NATSLEASE[alias]["SWEEP"]`` says which: ``PATTERN``, what the streams' names look like;
    ``KEEP``, the dotted path of a function that returns the names of those that are wanted;
    ``MIN_AGE``, seconds that a queue must be old and quiet (3600), and ``LIMIT``, how many are
    deleted at most (100). Streams that natslease keeps for itself are never deleted.

    Raises:
        ImproperlyConfigured: the settings do not say.
        Error: as ``Fleet.sweep``; and whatever KEEP raises: then nothing is deleted.
    """
    options = sweep_options(alias)
    keep: Callable[[], Iterable[str]] = import_string(options["KEEP"])
    wanted = {*keep(), *own_streams(alias)}
    return fleet_of(alias).sweep(
        options["PATTERN"],
        keep=sorted(wanted),
        min_age=options.get("MIN_AGE", 3600.0),
        limit=options.get("LIMIT", 100),
        dry_run=dry_run,
        timeout=timeout,
    )


def sweep_options(alias: str) -> dict[str, Any]:
    """What the settings say of sweeping.

    Raises:
        ImproperlyConfigured: nothing, or something wrong.
    """
    options = _settings.options_of(alias).get("SWEEP")
    if not isinstance(options, dict) or not {"KEEP", "PATTERN"} <= set(options):
        raise ImproperlyConfigured(
            f"NATSLEASE[{alias!r}] does not say what is swept: "
            '"SWEEP": {"PATTERN": "job_*", "KEEP": "path.to.function"}'
        )
    if unknown := sorted(set(options) - set(_SWEEP_OPTIONS)):
        raise ImproperlyConfigured(
            f"NATSLEASE[{alias!r}]['SWEEP'] has no option {', '.join(map(repr, unknown))}; the "
            f"options are {', '.join(_SWEEP_OPTIONS)}"
        )
    return options


def own_streams(alias: str) -> set[str]:
    """The streams that natslease keeps for itself."""
    options = _settings.options_of(alias)
    fleet = options.get("FLEET") or {}
    bucket, events = fleet.get("BUCKET", "natslease_workers"), fleet.get("EVENTS")
    return {f"KV_{bucket}", events or "natslease_events", options.get("DEAD_LETTERS") or ""} - {""}
