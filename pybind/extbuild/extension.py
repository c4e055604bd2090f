"""Generates and compiles the extension, unless what it is made of has not changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from . import patch, toolchain
from .toolchain import ROOT, BuildError, Compiler

FILENAME = "_natslease.abi3.so"

# gopy prefixes the module's name with an underscore.
_GOPY_NAME = "natslease"
_PACKAGE = "github.com/RolnickLab/natslease/pybind"
_TOOLS = ("github.com/go-python/gopy", "golang.org/x/tools/cmd/goimports")
# These packages are made small, not fast: nothing is inlined. Calls wait for the network, not for
# them; what moves bytes (the runtime, nats.go, sync, bytes, strings) is not among them.
_COLD = (
    "bufio",
    "compress/...",
    "context",
    "crypto/...",
    "encoding/...",
    "fmt",
    "github.com/RolnickLab/natslease/...",
    "github.com/klauspost/...",
    "github.com/nats-io/jwt/...",
    "github.com/nats-io/nkeys",
    "github.com/nats-io/nuid",
    "github.com/sony/...",
    "golang.org/x/...",
    "hash/...",
    "internal/fmtsort",
    "internal/godebug",
    "internal/poll",
    "internal/reflectlite",
    "internal/strconv",
    "internal/syscall/...",
    "io/...",
    "log/...",
    "math/big",
    "math/rand/...",
    "mime",
    "mime/...",
    "net",
    "net/http/...",
    "net/netip",
    "net/textproto",
    "net/url",
    "os",
    "path/...",
    "reflect",
    "regexp/...",
    "sort",
    "strconv",
    "syscall",
    "text/...",
    "time",
    "vendor/...",
)
# The leading underscore keeps generated packages out of the pattern ./...
_WORK = ROOT / "build" / "_extension"


def build() -> Path:
    """Returns the extension, built now if its sources or its tools have changed."""
    toolchain.check_platform()
    go_version = toolchain.check_go()
    compiler = toolchain.find_compiler()
    headers = toolchain.find_headers()
    work = _WORK / f"{compiler.goarch}-{compiler.platform_tag or 'native'}"
    with _locked():
        work.mkdir(exist_ok=True)
        library, stamp = work / FILENAME, work / "stamp"
        digest = _digest([go_version, *compiler[:2], str(headers), version("pybindgen")])
        if library.is_file() and stamp.is_file() and stamp.read_text() == digest:
            return library
        stamp.unlink(missing_ok=True)
        generated = work / "src"
        _generate(generated, headers)
        _compile(generated, library, compiler)
        stamp.write_text(digest)
    return library


def install(library: Path, destination: Path) -> None:
    """Copies the extension to a new file: running processes may have mapped the old one."""
    if destination.is_file() and destination.read_bytes() == library.read_bytes():
        return
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}")
    shutil.copyfile(library, temporary)
    temporary.chmod(0o755)
    temporary.replace(destination)


def sources() -> Iterator[Path]:
    """The files of this repository that the extension is made of."""
    yield ROOT / "go.mod"
    yield ROOT / "go.sum"
    for folder in ("core", "pybind"):
        yield from sorted(
            p for p in (ROOT / folder).rglob("*.go") if not p.name.endswith("_test.go")
        )
    yield from sorted(Path(__file__).parent.glob("*.py"))


def _digest(facts: Iterable[str]) -> str:
    digest = hashlib.sha256("\0".join(facts).encode())
    for path in sources():
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@contextmanager
def _locked() -> Iterator[None]:
    """Lets one process at a time build in this checkout: pip and make may be run side by side."""
    _WORK.mkdir(parents=True, exist_ok=True)
    with (_WORK / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _generate(generated: Path, headers: Path) -> None:
    tools = ROOT / "build" / "bin"
    for package in _TOOLS:
        run(["go", "build", "-buildvcs=false", "-o", f"{tools}{os.sep}", package])
    shutil.rmtree(generated, ignore_errors=True)
    generated.mkdir()
    # gopy only reads the package: without cgo it needs no C compiler for that.
    run(
        [
            str(tools / "gopy"),
            "gen",
            "-no-make",
            f"-vm={sys.executable}",
            f"-name={_GOPY_NAME}",
            f"-output={generated}",
            _PACKAGE,
        ],
        CGO_ENABLED="0",
    )
    go_file, stubs, c_file = (
        generated / name for name in (f"{_GOPY_NAME}.go", "build.py", f"{_GOPY_NAME}.c")
    )
    exports = patch.signatures(go_file.read_text())
    go_file.write_text(patch.patch_go(go_file.read_text(), include=str(headers)))
    run([str(tools / "goimports"), "-w", str(go_file)])
    stubs.write_text(patch.patch_stubs(stubs.read_text(), name=_GOPY_NAME))
    run([sys.executable, stubs.name], cwd=generated)
    c_file.write_text(patch.patch_c(c_file.read_text(), exports))


def _compile(generated: Path, library: Path, compiler: Compiler) -> None:
    temporary = library.with_suffix(".new")
    # Nothing else is seen from outside: neither by another Go library in the process nor in size.
    exported = generated / "exported.map"
    exported.write_text(f"{{ global: PyInit__{_GOPY_NAME}; local: *; }};\n")
    run(
        [
            "go",
            "build",
            "-buildmode=c-shared",
            "-buildvcs=false",
            "-trimpath",
            "-tags=netgo,osusergo",
            *(f"-gcflags={packages}=-l" for packages in _COLD),
            # Go asks the C linker to strip with -s, which zig cc does not pass on to its linker.
            # The build id would differ from folder to folder; without it the same sources make the
            # same bytes.
            "-ldflags=-s -w -buildid= -funcalign=4 "
            f"'-extldflags=-Wl,--strip-all \"-Wl,--version-script={exported}\"'",
            f"-o={temporary}",
            f"./{generated.relative_to(ROOT)}",
        ],
        CC=compiler.command,
        CGO_ENABLED="1",
        GOARCH=compiler.goarch,
        GOOS="linux",
    )
    # The C header that c-shared writes beside the library describes functions for C programs.
    temporary.with_suffix(".h").unlink()
    temporary.replace(library)


def run(command: list[str], *, cwd: Path = ROOT, **environment: str) -> str:
    """Runs a tool and returns its output, or raises BuildError with that."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout
