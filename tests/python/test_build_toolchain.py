"""What a machine lacks is said in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from extbuild import toolchain


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv(toolchain.TARGET_VARIABLE, raising=False)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A module that needs Go 1.26.0."""
    (tmp_path / "go.mod").write_text("module example.org/m\n\ngo 1.26.0\n")
    return tmp_path


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("version", ["go1.26.0", "go1.26.8", "go1.30", "go2.0.1"])
def test_go_that_will_do(path: Path, root: Path, version: str) -> None:
    program(path / "go", f"echo {version}")
    assert toolchain.check_go(root) == version


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("echo go1.19.8", "1.19.8"),
        ("echo go1.9", "1.9"),
        (
            "echo 'go: go.mod requires go >= 1.26.0 (running go 1.24.1; GOTOOLCHAIN=local)' >&2; "
            "exit 1",
            "1.24.1",
        ),
    ],
)
def test_go_that_is_too_old(path: Path, root: Path, script: str, version: str) -> None:
    program(path / "go", script)
    with pytest.raises(toolchain.BuildError) as raised:
        toolchain.check_go(root)
    assert str(raised.value) == (
        f"natslease needs a newer Go than {version}: "
        "install Go 1.26.0 or later (https://go.dev/dl/) and put it on PATH"
    )


def test_go_that_does_not_run(path: Path, root: Path) -> None:
    program(path / "go", "echo 'go: cannot find GOROOT directory' >&2; exit 2")
    with pytest.raises(toolchain.BuildError, match=r"cannot run Go: .*GOROOT"):
        toolchain.check_go(root)


def test_no_go_is_one_line_in_an_install(path: Path) -> None:
    hook = "from extbuild import backend; backend.get_requires_for_build_wheel()"
    done = subprocess.run(
        [sys.executable, "-c", hook],
        env={**os.environ, "PYTHONPATH": str(toolchain.ROOT / "pybind")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: natslease needs Go to build, and there is none: "
        "install Go 1.26.0 or later (https://go.dev/dl/) and put it on PATH\n"
    )


def test_any_c_compiler_will_do(path: Path) -> None:
    program(path / "cc", "exit 0")
    assert not toolchain.needs_zig()
    assert toolchain.find_compiler().command == "cc"
    assert toolchain.find_compiler().platform_tag is None


def test_the_chosen_c_compiler_is_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "ccache gcc-13")
    assert toolchain.find_compiler().command == "ccache gcc-13"


def test_no_c_compiler_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_zig", lambda: None)
    assert toolchain.needs_zig()
    with pytest.raises(toolchain.BuildError, match=r"install gcc, or run 'pip install ziglang=="):
        toolchain.find_compiler()


@pytest.mark.parametrize(
    ("target", "goarch", "tag"),
    [
        (
            "x86_64-linux-gnu.2.17",
            "amd64",
            "manylinux_2_17_x86_64.manylinux2014_x86_64",
        ),
        ("aarch64-linux-gnu.2.28", "arm64", "manylinux_2_28_aarch64"),
    ],
)
def test_zig_for_a_target(
    path: Path, monkeypatch: pytest.MonkeyPatch, target: str, goarch: str, tag: str
) -> None:
    monkeypatch.setattr(toolchain, "_zig", lambda: Path("/opt/my tools/zig"))
    monkeypatch.setenv(toolchain.TARGET_VARIABLE, target)
    compiler = toolchain.find_compiler()
    assert compiler == (f"'/opt/my tools/zig' cc -target {target}", goarch, tag)


@pytest.mark.parametrize("target", ["", "x86_64-linux-musl", "riscv64-linux-gnu.2.27"])
def test_a_target_that_is_not_supported(
    path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(toolchain, "_zig", lambda: Path("/opt/zig"))
    monkeypatch.setenv(toolchain.TARGET_VARIABLE, target)
    with pytest.raises(toolchain.BuildError, match=r"NATSLEASE_TARGET|not for riscv64"):
        toolchain.find_compiler()


def test_no_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(toolchain.BuildError, match="install python3-dev"):
        toolchain.find_headers()


def test_an_interpreter_without_the_stable_abi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: name == "Py_GIL_DISABLED" or "")
    with pytest.raises(toolchain.BuildError, match="with the GIL"):
        toolchain.check_platform()
