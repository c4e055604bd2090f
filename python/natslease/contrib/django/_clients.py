"""Clients by the aliases of the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

import natslease

from . import _settings

if TYPE_CHECKING:
    from natslease import AsyncClient, Client

C = TypeVar("C", "Client", "AsyncClient")


class ClientsByAlias(Mapping[str, C], Generic[C]):
    """Clients, made when they are first asked for; making one does no I/O."""

    def __init__(self) -> None:
        self._made: dict[str, C] = {}
        self._lock = Lock()
        _settings.on_change(self._forget)

    def __getitem__(self, alias: str) -> C:
        """The client of an alias of ``settings.NATSLEASE``.

        Raises:
            ImproperlyConfigured: there is no such alias, or an option is wrong.
        """
        made = self._made.get(alias)
        if made is not None:
            return made
        with self._lock:
            if alias not in self._made:
                self._made[alias] = make_client(self._kind(), alias)
            return self._made[alias]

    def __iter__(self) -> Iterator[str]:
        return iter(_settings.aliases())

    def __len__(self) -> int:
        return len(_settings.aliases())

    def __contains__(self, alias: object) -> bool:
        return alias in _settings.aliases()

    def _kind(self) -> type[C]:
        raise NotImplementedError

    def _forget(self) -> None:
        self._made.clear()


class Clients(ClientsByAlias["Client"]):
    """``clients["default"]``, for synchronous code."""

    def _kind(self) -> type[Client]:
        return natslease.Client


class AsyncClients(ClientsByAlias["AsyncClient"]):
    """``async_clients["default"]``, for code that awaits."""

    def _kind(self) -> type[AsyncClient]:
        return natslease.AsyncClient


def make_client(kind: type[C], alias: str) -> C:
    """A client with the options of an alias."""
    named = {
        _settings.CLIENT_OPTIONS[key]: value
        for key, value in _settings.options_of(alias).items()
        if key in _settings.CLIENT_OPTIONS
    }
    try:
        if "servers" in named:
            return kind(**named)
        if alias != _settings.DEFAULT_ALIAS:
            raise ImproperlyConfigured(f"NATSLEASE[{alias!r}] has no URL")
        url: Any = getattr(settings, "NATS_URL", None)
        return kind.from_env(**({"servers": url} if url else {}), **named)
    except (natslease.ConfigError, TypeError) as error:
        raise ImproperlyConfigured(f"NATSLEASE[{alias!r}]: {error}") from error


clients = Clients()
async_clients = AsyncClients()
