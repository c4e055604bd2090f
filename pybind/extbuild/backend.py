"""PEP 517 and PEP 660 hooks: setuptools' own, with what the machine lacks said first."""

from __future__ import annotations

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from . import toolchain

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def get_requires_for_build_wheel(
    config_settings: dict[str, str | list[str] | None] | None = None,
) -> list[str]:
    return [*_own_requirements(), *build_meta.get_requires_for_build_wheel(config_settings)]


def get_requires_for_build_editable(
    config_settings: dict[str, str | list[str] | None] | None = None,
) -> list[str]:
    return [*_own_requirements(), *build_meta.get_requires_for_build_editable(config_settings)]


def _own_requirements() -> list[str]:
    toolchain.require()
    return [toolchain.ZIG_REQUIREMENT] if toolchain.needs_zig() else []
