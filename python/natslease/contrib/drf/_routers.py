"""URLs with and without a trailing slash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.routers import DefaultRouter, SimpleRouter

if TYPE_CHECKING:
    _Base = SimpleRouter
else:
    _Base = object


class _OptionalSlash(_Base):
    """URLs work with and without the trailing slash; those that are made by name have it."""

    def get_urls(self) -> list[Any]:
        # Two patterns, not one with "/?": that would be written without the slash. Of patterns with
        # the same name Django writes the last.
        self.trailing_slash = ""
        without = SimpleRouter.get_urls(self)
        self.trailing_slash = "/"
        return [*without, *super().get_urls()]


class OptionalSlashSimpleRouter(_OptionalSlash, SimpleRouter):
    """A ``SimpleRouter`` whose URLs work with and without the trailing slash, with no redirect."""


class OptionalSlashRouter(_OptionalSlash, DefaultRouter):
    """A ``DefaultRouter`` whose URLs work with and without the trailing slash, with no redirect."""
