"""Finds what the build needs on this machine; what is missing is one line, not a traceback."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

# The checkout, or the unpacked source distribution.
ROOT = Path(__file__).resolve().parents[2]

# Pinned here because it is required only where there is no C compiler, or for wheels.
ZIG_REQUIREMENT = "ziglang==0.17.1"

# Names a target of zig, e.g. x86_64-linux-gnu.2.17; its last part is the oldest glibc to run on.
TARGET_VARIABLE = "NATSLEASE_TARGET"

_GOARCH = {"x86_64": "amd64", "aarch64": "arm64"}


class BuildError(Exception):
    """Something the build needs is missing; the text says what to install."""


class Target(NamedTuple):
    """A kind of machine, and the oldest glibc 2 to run on."""

    machine: str
    glibc: int

    @property
    def goarch(self) -> str:
        return _goarch(self.machine)

    @property
    def platform_tag(self) -> str:
        """What wheels say of it: for 2.17 in the older form, too, which every pip knows."""
        tag = f"manylinux_2_{self.glibc}_{self.machine}"
        return f"{tag}.manylinux2014_{self.machine}" if self.glibc == 17 else tag

    def __str__(self) -> str:
        return f"{self.machine}-linux-gnu.2.{self.glibc}"


class Compiler(NamedTuple):
    """A C compiler for cgo, and the machine and glibc it compiles for."""

    command: str
    goarch: str
    platform_tag: str | None
    """The wheel's platform where it is more general than this machine's."""


def check_platform() -> None:
    """Refuses interpreters and systems on which the extension cannot be loaded."""
    if sys.platform != "linux":
        raise BuildError(f"natslease builds on Linux only, not on {sys.platform}")
    if "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
        raise BuildError("natslease needs glibc: musl cannot load a Go shared library")
    if platform.python_implementation() != "CPython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise BuildError("natslease needs CPython with the GIL (the stable ABI)")


def check_go(root: Path = ROOT) -> str:
    """Returns the version of Go, which is at least what go.mod asks for."""
    needed = _go_directive(root)
    advice = f"install Go {needed} or later (https://go.dev/dl/) and put it on PATH"
    if shutil.which("go") is None:
        raise BuildError(f"natslease needs Go to build, and there is none: {advice}")
    # Run in the module, so that a Go that may fetch newer toolchains answers with the fetched one.
    done = subprocess.run(
        ["go", "env", "GOVERSION"], cwd=root, capture_output=True, text=True, check=False
    )
    version = done.stdout.strip()
    if done.returncode != 0:
        # "go: go.mod requires go >= 1.26.0 (running go 1.24.1; GOTOOLCHAIN=local)"
        running = re.search(r"running go (\S+?)[;)]", done.stderr)
        if running is None:
            raise BuildError(f"natslease cannot run Go: {' '.join(done.stderr.split())}")
        version = f"go{running[1]}"
    if done.returncode != 0 or _numbers(version) < _numbers(needed):
        raise BuildError(f"natslease needs a newer Go than {version.removeprefix('go')}: {advice}")
    return version


def needs_zig() -> bool:
    """Whether the C compiler is to be zig's: asked for, or there is no other."""
    return TARGET_VARIABLE in os.environ or _system_compiler() is None


def find_compiler() -> Compiler:
    """The C compiler of this machine, or zig's."""
    machine = platform.machine()
    if not needs_zig():
        return Compiler(str(_system_compiler()), _goarch(machine), platform_tag=None)
    zig = _zig()
    if zig is None:
        raise BuildError(
            "natslease needs a C compiler to build, and there is none: "
            f"install gcc, or run 'pip install {ZIG_REQUIREMENT}'"
        )
    target = find_target()
    command = f"{shlex.quote(str(zig))} cc -target {target}"
    return Compiler(command, target.goarch, target.platform_tag)


def find_target() -> Target:
    """What wheels are built for: this kind of machine with glibc 2.17, unless another is named."""
    machine = platform.machine()
    target = os.environ.get(TARGET_VARIABLE, f"{machine}-linux-gnu.2.17")
    match = re.fullmatch(r"(\w+)-linux-gnu\.2\.(\d+)", target)
    if match is None:
        raise BuildError(f"{TARGET_VARIABLE}={target} is not of the form {machine}-linux-gnu.2.17")
    return Target(match[1], int(match[2]))


def find_headers() -> Path:
    """The folder of Python.h."""
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").is_file():
        raise BuildError(
            f"natslease needs Python's C headers to build, and {include} has none: "
            "install python3-dev (Debian, Ubuntu) or python3-devel (Fedora)"
        )
    return include


def _go_directive(root: Path) -> str:
    match = re.search(r"^go (\S+)$", (root / "go.mod").read_text(), re.M)
    if match is None:
        raise BuildError(f"{root / 'go.mod'} has no go directive")
    return match[1]


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"(?:go)?(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(part or 0) for part in match.groups()) if match else (0,)


def _goarch(machine: str) -> str:
    try:
        return _GOARCH[machine]
    except KeyError:
        raise BuildError(
            f"natslease builds for {' and '.join(_GOARCH)}, not for {machine}"
        ) from None


def _system_compiler() -> str | None:
    if command := os.environ.get("CC"):
        return command
    return next((name for name in ("gcc", "cc", "clang") if shutil.which(name)), None)


def _zig() -> Path | None:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).with_name("zig")


def require() -> None:
    """Says what is missing before anything is downloaded or compiled."""
    try:
        check_platform()
        check_go()
        find_headers()
    except BuildError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    require()
