"""The compiled module: what it links, what it converts, and when it is built again."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import elf
from extbuild import extension, toolchain

MAX_SIZE = 8 * 2**20
LIBRARY = toolchain.ROOT / "python" / "natslease" / extension.FILENAME


@pytest.fixture(scope="module")
def native() -> ModuleType:
    return importlib.import_module("natslease._natslease")


def test_links_nothing_but_libc() -> None:
    library = elf.describe(LIBRARY)
    assert set(library.needed) <= elf.LIBC
    assert library.size <= MAX_SIZE


def test_shows_nothing_to_other_libraries_of_the_process() -> None:
    assert elf.describe(LIBRARY).exported == {"PyInit__natslease"}


def test_python_symbols_are_all_in_the_stable_abi() -> None:
    # The subset that gopy and pybindgen use; abi3audit checks the wheel against the whole list.
    used = {name for name in elf.describe(LIBRARY).undefined if name.startswith(("Py", "_Py"))}
    assert used <= {
        "PyArg_ParseTupleAndKeywords",
        "PyBytes_AsString",
        "PyBytes_FromStringAndSize",
        "PyBytes_Size",
        "PyErr_Occurred",
        "PyEval_RestoreThread",
        "PyEval_SaveThread",
        "PyLong_FromLongLong",
        "PyModule_Create2",
        "_PyArg_ParseTupleAndKeywords_SizeT",
        "_Py_BuildValue_SizeT",
        "_Py_Dealloc",
        "_Py_NoneStruct",
    }


@pytest.mark.parametrize("data", [b"", b"\0", b"{}", bytes(range(256)) * 4096])
def test_bytes_leave_no_handle_behind(native: ModuleType, data: bytes) -> None:
    before = native.NumHandles()
    answer = native.pybind_Open(1, data)
    assert (type(answer), answer[0]) == (bytes, 0 if data == b"{}" else 1)
    assert native.pybind_ForgetClient(1, 10**9) == 1
    assert native.NumHandles() == before


@pytest.mark.parametrize("value", ["text", bytearray(b"x"), None, 1])
def test_other_types_are_refused(native: ModuleType, value: object) -> None:
    with pytest.raises(TypeError, match="must be bytes"):
        native.pybind_Open(1, value)


def test_a_handle_that_is_not_there_is_an_error(native: ModuleType) -> None:
    assert native.pybind_Wait(2**62, 0)[0] == 1
    assert native.pybind_Stats(-1)[0] == 1


def test_a_daemon_thread_in_a_call_does_not_disturb_the_exit() -> None:
    script = """
import threading
from natslease import _natslease as native

def call():
    while True:
        native.NumHandles()
        native.pybind_Open(1, b"x" * 100)

for _ in range(4):
    threading.Thread(target=call, daemon=True).start()
"""
    for _ in range(10):
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


class FakeBuild:
    """A checkout with one source file, and a count of how often it was compiled."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.compiled = 0
        self.fail = False
        self.source = folder / "core.go"
        self.source.write_text("package core\n")
        monkeypatch.setattr(extension, "ROOT", folder)
        monkeypatch.setattr(extension, "_WORK", folder / "work")
        monkeypatch.setattr(extension, "sources", lambda: [self.source])
        monkeypatch.setattr(extension, "_generate", lambda generated, headers: None)
        monkeypatch.setattr(extension, "_compile", self._compile)

    def _compile(self, generated: Path, library: Path, compiler: toolchain.Compiler) -> None:
        if self.fail:
            raise toolchain.BuildError("does not compile")
        self.compiled += 1
        library.write_text(f"build {self.compiled}")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBuild:
    return FakeBuild(tmp_path, monkeypatch)


def test_built_again_only_when_something_changed(
    fake: FakeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    extension.build()
    extension.build()
    assert fake.compiled == 1
    fake.source.touch()
    extension.build()
    assert fake.compiled == 1
    fake.source.write_text("package core // changed\n")
    extension.build()
    assert fake.compiled == 2
    monkeypatch.setattr(toolchain, "check_go", lambda: "go1.99.0")
    extension.build()
    assert fake.compiled == 3


def test_a_failed_build_is_not_taken_for_a_good_one(fake: FakeBuild) -> None:
    extension.build()
    good = fake.source.read_text()
    fake.source.write_text("package broken\n")
    fake.fail = True
    with pytest.raises(toolchain.BuildError):
        extension.build()
    fake.source.write_text(good)
    fake.fail = False
    extension.build()
    assert fake.compiled == 2


def test_a_new_library_does_not_change_the_mapped_one(tmp_path: Path) -> None:
    old, new, installed = (tmp_path / name for name in ("old", "new", "installed"))
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    extension.install(old, installed)
    with installed.open("rb") as mapped:
        extension.install(new, installed)
        assert mapped.read() == b"old"
    assert installed.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["installed", "new", "old"]


def test_the_sources_are_all_of_the_code_that_is_compiled() -> None:
    names = {path.relative_to(toolchain.ROOT).as_posix() for path in extension.sources()}
    assert {"go.mod", "go.sum", "core/client.go", "pybind/extbuild/patch.py"} <= names
    assert not any(name.endswith("_test.go") for name in names)
