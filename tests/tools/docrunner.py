"""Runs the code blocks of a page of the documentation, with a server and a folder of their own."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from docpages import ROOT, Block, programs, read
from natslease.testing import Server, find_server
from natslease.testing._server import reserve_port
from program import PATIENCE, Program, ProgramFailed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The server's, and those of the page's own web servers.
_ADDRESS = re.compile(r"\b(?:localhost|127\.0\.0\.1|0\.0\.0\.0):(4222|80\d\d)\b")
_SERVER = re.compile(r"\$ (natslease server|nats-server)\b")
_VARIABLE = re.compile(r"\$([A-Z][A-Z0-9_]*)")
_ENDED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)


def run(path: Path, packages: Path | None = None) -> None:
    """Tests all blocks of a page.

    Args:
        packages: a folder of wheels. What the page installs is then installed from it, and used:
            of this checkout's environment and programs there is only Python.

    Raises:
        PageFailed: a block does not do what the page says.
    """
    found = read(path)
    if not found:
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="natslease-docs-")))
        page = Page(folder, packages, stack)
        if not any(block.how == "serve" and _SERVER.match(block.text) for block in found):
            page.start_server()
        for block in programs(found):
            page.test(block)


class Page:
    """What the blocks of a page share."""

    def __init__(self, folder: Path, packages: Path | None, stack: ExitStack) -> None:
        self._folder = folder
        self._packages = packages
        self._stack = stack
        self._output = ""
        self._ports: dict[int, int] = {}
        # An environment that the page makes comes first.
        search: list[str | Path] = [folder / ".venv" / "bin"]
        if packages is None:
            search += [Path(sys.executable).parent, ROOT / "build" / "bin", os.environ["PATH"]]
        else:
            search += [Path(sys.executable).resolve().parent, "/usr/bin", "/bin"]
        self._environment = {
            **os.environ,
            "PATH": os.pathsep.join(map(str, search)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "XDG_DATA_HOME": str(folder / ".data"),  # NATS's commands keep files there
        }
        if packages is not None:
            self._environment |= {"PIP_FIND_LINKS": str(packages), "PIP_NO_INDEX": "1"}
            self._environment.pop("NATSLEASE_NATS_SERVER", None)
        self._ways: dict[str, Callable[[Block], None]] = {
            "bash": self._bash,
            "console": self._console,
            "file": self._file,
            "go": self._go,
            "install": self._install,
            "make": self._make,
            "nats-server": self._nats_server,
            "output": self._compare,
            "parse": self._parse,
            "python": self._python,
            "serve": self._serve,
        }

    def start_server(self) -> None:
        """Starts the server of a page that does not start one itself."""
        server = self._stack.enter_context(Server())
        self._ports[4222] = server.port
        self._environment["NATS_URL"] = server.url

    def test(self, block: Block) -> None:
        """Tests one block; those before it have been."""
        if block.how not in self._ways:
            raise block.failed(f"{block.how!r} is none of {', '.join(self._ways)}")
        self._ways[block.how](block)

    def _here(self, text: str) -> str:
        """With the addresses that the page's own servers listen on."""
        return _ADDRESS.sub(lambda found: f"127.0.0.1:{self._port(int(found[1]))}", text)

    def _port(self, port: int) -> int:
        if port not in self._ports:
            reservation = self._stack.enter_context(reserve_port())
            self._ports[port] = reservation.getsockname()[1]
        return self._ports[port]

    def _run(
        self, block: Block, *command: str | Path, cwd: Path | None = None, merged: bool = False
    ) -> tuple[str, str]:
        try:
            done = subprocess.run(
                command,
                cwd=cwd or self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise block.failed(f"does not end: {error.output!r} {error.stderr!r}") from None
        if done.returncode:
            raise block.failed(f"ended with {done.returncode}\n{done.stdout}{done.stderr or ''}")
        return done.stdout, done.stderr or ""

    def _python(self, block: Block) -> None:
        # A file, and one that names the page: processes that are spawned import it anew.
        script = self._folder / f"{Path(block.page).stem}_{block.line}.py"
        script.write_text(self._here(block.text))
        strict = ["-W", "error", "-W", "ignore:.*multi-threaded:DeprecationWarning"]
        self._output, complaints = self._run(block, "python", *strict, script)
        if complaints:
            raise block.failed(complaints)

    def _go(self, block: Block) -> None:
        # Inside the module, which it imports; the underscore keeps it out of ./...
        with tempfile.TemporaryDirectory(prefix="_docs-", dir=ROOT / "build") as folder:
            Path(folder, "main.go").write_text(self._here(block.text))
            package = f"./{Path(folder).relative_to(ROOT)}"
            self._output, _ = self._run(block, "go", "run", package, cwd=ROOT)

    def _bash(self, block: Block) -> None:
        text = self._here(block.text)
        self._output, _ = self._run(block, "bash", "-euo", "pipefail", "-c", text, merged=True)

    def _console(self, block: Block) -> None:
        if block.argument not in ("", "checkout"):
            raise block.failed(f"console in {block.argument!r}")
        session = list(_session(block))
        script = "".join(f"{self._here(command)}\nprintf '\\0'\n" for command, _ in session)
        cwd = ROOT if block.argument else self._folder
        output, _ = self._run(block, "bash", "-euo", "pipefail", "-c", script, cwd=cwd, merged=True)
        *outputs, _ = output.split("\0")
        for (command, expected), self._output in zip(session, outputs, strict=True):
            if expected:
                self._check(block, f"$ {command}", expected)

    def _serve(self, block: Block) -> None:
        ((command, _),) = _session(block)
        if not block.argument:
            raise block.failed("which output shows that it is ready?")
        if _SERVER.match(block.text):
            port = self._port(4222)
            self._environment["NATS_URL"] = f"nats://127.0.0.1:{port}"
            command += f" --port {port}"
        self._stack.enter_context(self._running(block, self._here(command)))

    @contextmanager
    def _running(self, block: Block, command: str) -> Iterator[None]:
        with Program("bash", "-c", command, cwd=self._folder, env=self._environment) as program:
            try:
                program.await_output(block.argument)
                yield
                status = program.end()
            except ProgramFailed as error:
                raise block.failed(str(error)) from error
            # A nats-server of 2.10 ends with 1.
            if status not in _ENDED and not (status == 1 and _SERVER.match(block.text)):
                raise block.failed(f"ended with {status}\n{program.output}")

    def _install(self, block: Block) -> None:
        if self._packages is not None:
            self._console(block)
            return
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for command, _ in _session(block):
            if not command.startswith("pip install "):
                continue
            for name in shlex.split(command, comments=True)[2:]:
                wanted = Requirement(name)
                if wanted.name == project["name"] and (
                    missing := wanted.extras - set(project["optional-dependencies"])
                ):
                    raise block.failed(f"there is no extra {', '.join(missing)}")

    def _make(self, block: Block) -> None:
        for command, _ in _session(block):
            command = command.partition(" #")[0].strip()
            self._run(block, "make", "--dry-run", *command.split()[1:], cwd=ROOT)

    def _file(self, block: Block) -> None:
        name, _, more = block.argument.partition(" ")
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder.resolve()) or more not in ("", "more"):
            raise block.failed(f"a file {block.argument!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if more else "w") as file:
            file.write(self._here(block.text))

    def _nats_server(self, block: Block) -> None:
        self._environment.update(dict.fromkeys(_VARIABLE.findall(block.text), "secret"))
        config = self._folder / "nats-server.conf"
        config.write_text(block.text)
        self._run(block, find_server(), "-t", "-c", config, merged=True)

    def _parse(self, block: Block) -> None:
        if block.language not in _PARSERS:
            raise block.failed(f"{block.language!r} is none of {', '.join(_PARSERS)}")
        try:
            _PARSERS[block.language](block.text)
        except (ValueError, yaml.YAMLError, configparser.Error) as error:
            raise block.failed(str(error)) from error

    def _compare(self, block: Block) -> None:
        self._check(block, "the block before", block.text)

    def _check(self, block: Block, what: str, expected: str) -> None:
        pattern = re.escape(self._here(expected).strip()).replace(r"\.\.\.", ".*")
        if not re.fullmatch(pattern, self._output.strip(), re.DOTALL):
            raise block.failed(f"{what} has written\n{self._output}\nand not\n{expected}")


def _ini(text: str) -> None:
    configparser.ConfigParser(interpolation=None, strict=False).read_string(text)


_PARSERS: dict[str, Callable[[str], object]] = {
    "ini": _ini,
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}


def _session(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a terminal session, and what each has written."""
    lines = block.text.splitlines(keepends=True)
    if not lines or not lines[0].startswith("$ "):
        raise block.failed("no line with '$ '")
    while lines:
        command = lines.pop(0).removeprefix("$ ")
        while command.endswith("\\\n"):
            command += lines.pop(0)
        expected = ""
        while lines and not lines[0].startswith("$ "):
            expected += lines.pop(0)
        yield command.rstrip("\n"), expected
