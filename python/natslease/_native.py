"""The compiled extension, as it is loaded in this process.

A Go runtime does not survive fork: a child that called the copy of the extension that it inherited
would hang. So a child loads a copy of its own, from a file that is not the parent's: the dynamic
linker would otherwise find that the library is there already.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from itertools import count
from threading import Lock, get_ident

from ._errors import NotLoaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    # A function of the extension; see the exports of the Go package pybind for their arguments.
    # Most return the handle of an answer.
    Export = Callable[..., int]

_NAME = "natslease._natslease"
# os.path: pathlib is slow to import.
_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_natslease.abi3.so")  # noqa: PTH100, PTH118, PTH120


class Native:
    """One loaded copy of the extension."""

    __slots__ = (
        "cancel",
        "close_client",
        "delete",
        "ensure",
        "forget_client",
        "forget_queue",
        "from_bytes",
        "generation",
        "info",
        "keep",
        "kept",
        "logs",
        "notifier_close",
        "notifier_open",
        "notifier_take",
        "open",
        "open_queue",
        "pid",
        "ping",
        "publish",
        "purge",
        "release",
        "reserve",
        "reserve_any",
        "settle",
        "sockets",
        "stats",
        "taken",
        "tickets",
        "to_bytes",
        "unkeep",
        "wait",
    )

    def __init__(self, module: ModuleType, generation: int) -> None:
        self.pid = os.getpid()
        self.generation = generation
        # Tickets are chosen here, so that an operation can be cancelled whenever its call is
        # interrupted.
        self.tickets = count(1)
        self.cancel: Export = module.pybind_Cancel
        self.close_client: Export = module.pybind_CloseClient
        self.delete: Export = module.pybind_Delete
        self.ensure: Export = module.pybind_Ensure
        self.forget_client: Export = module.pybind_ForgetClient
        self.forget_queue: Export = module.pybind_ForgetQueue
        self.info: Export = module.pybind_Info
        self.keep: Export = module.pybind_Keep
        self.kept: Export = module.pybind_Kept
        self.logs: Export = module.pybind_Logs
        self.notifier_close: Export = module.pybind_NotifierClose
        self.notifier_open: Export = module.pybind_NotifierOpen
        self.notifier_take: Export = module.pybind_NotifierTake
        self.open: Export = module.pybind_Open
        self.open_queue: Export = module.pybind_OpenQueue
        self.ping: Export = module.pybind_Ping
        self.publish: Export = module.pybind_Publish
        self.purge: Export = module.pybind_Purge
        self.release: Export = module.pybind_Release
        self.reserve: Export = module.pybind_Reserve
        self.reserve_any: Export = module.pybind_ReserveAny
        self.settle: Export = module.pybind_Settle
        self.sockets: Export = module.pybind_Sockets
        self.stats: Export = module.pybind_Stats
        self.taken: Export = module.pybind_Taken
        self.unkeep: Export = module.pybind_Unkeep
        self.wait: Export = module.pybind_Wait
        self.from_bytes: Callable[[bytes], int] = module.Slice_byte_from_bytes
        self.to_bytes: Callable[[int], bytes] = module.Slice_byte_to_bytes

    def is_usable(self, getpid: Callable[[], int] = os.getpid) -> bool:
        """Whether this copy was loaded by this process, not by one that it was forked from."""
        return self.pid == getpid()  # bound early: finalizers run when globals are gone

    def call(self, export: Export, *arguments: int | bytes) -> bytes:
        """Calls an export that does not wait, and takes its answer over."""
        return self.to_bytes(
            export(*(self.from_bytes(a) if isinstance(a, bytes) else a for a in arguments))
        )


_current: Native | None = None
_generation = 0
_lock = Lock()
# The descriptors of the connections, for the thread that is forking.
_inherited: dict[int, list[int]] = {}


def native() -> Native:
    """The extension of this process, loaded now if need be.

    Raises:
        NotLoaded: it cannot be loaded.
    """
    found = _current
    if found is not None and found.pid == os.getpid():
        return found
    return _load()


def _load() -> Native:
    global _current, _generation
    with _lock:
        found = _current
        if found is not None and found.is_usable():
            return found
        path = _FILE if _generation == 0 else None
        # Counted before the attempt: what failed half-way may be in the linker's tables.
        _generation += 1
        try:
            module = _import(path) if path else _import_copy(_generation)
        except (ImportError, OSError) as error:
            raise NotLoaded(_advice(error, copy=path is None)) from error
        _current = Native(module, _generation)
        return _current


def _import(path: str) -> ModuleType:
    loader = ExtensionFileLoader(_NAME, path)
    module = loader.create_module(ModuleSpec(_NAME, loader, origin=path))
    loader.exec_module(module)
    return module


def _import_copy(generation: int) -> ModuleType:
    """Loads the extension from a copy of its file, in memory or else in a temporary file."""
    # Python and the dynamic linker remember libraries by path, which must not occur twice in a line
    # of processes: dots make it longer without changing what it means.
    unique = "/".join(["/proc/self/fd", *["."] * generation])
    try:
        fd = os.memfd_create("natslease", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        return _import_temporary()
    try:
        _copy(fd)
        return _import(f"{unique}/{fd}")
    finally:
        os.close(fd)


def _import_temporary() -> ModuleType:
    from tempfile import mkstemp

    fd, path = mkstemp(prefix="natslease-", suffix=".so")
    try:
        try:
            _copy(fd)
        finally:
            os.close(fd)
        return _import(path)
    finally:
        os.unlink(path)  # noqa: PTH108


def _copy(fd: int) -> None:
    with open(_FILE, "rb") as source:  # noqa: PTH123
        left = os.fstat(source.fileno()).st_size
        while left > 0:
            left -= os.sendfile(fd, source.fileno(), None, left)


def _advice(error: Exception, *, copy: bool) -> str:
    if copy:
        return (
            f"a forked process cannot load its copy of natslease: {error}. It needs memfd_create, "
            "or a temporary directory (TMPDIR) to load programs from; a line of processes can fork "
            "about 200 generations deep. As a way out, start processes by spawn, not by fork."
        )
    if not os.path.exists(_FILE):  # noqa: PTH110
        return f"{_FILE} does not exist: install a wheel, or run `make build` in a checkout"
    version = sys.version.split()[0]
    return f"natslease's compiled part cannot be loaded into {version} on {sys.platform}: {error}"


def _before_fork() -> None:
    found = _current
    if found is not None and found.is_usable():
        _inherited[get_ident()] = list(memoryview(found.to_bytes(found.sockets()))[1:].cast("q"))


def _after_fork_in_parent() -> None:
    _inherited.pop(get_ident(), None)


def _after_fork_in_child() -> None:
    global _current, _lock
    _current = None
    _lock = Lock()  # another thread of the parent may have held it
    for fd in _inherited.pop(get_ident(), ()):
        # Closed, never shut down: that would end the parent's connection.
        try:  # noqa: SIM105 (contextlib is slow to import)
            os.close(fd)
        except OSError:  # noqa: PERF203
            pass
    _inherited.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
