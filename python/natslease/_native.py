"""The compiled extension, as it is loaded in this process.

A Go runtime does not survive fork: a child that called the copy of the extension that it inherited
would hang. So a child loads a copy of its own, from a file that is not the parent's: the dynamic
linker would otherwise find that the library is there already.
"""

from __future__ import annotations

import atexit
import os
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from itertools import count
from threading import RLock

from ._errors import ConnectionLost, NotLoaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    # A function of the extension that returns an answer; see the exports of the Go package pybind
    # for their arguments.
    Export = Callable[..., bytes]
    # One that returns a number.
    Count = Callable[..., int]

_NAME = "natslease._natslease"
# os.path: pathlib is slow to import.
_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_natslease.abi3.so")  # noqa: PTH100, PTH118, PTH120

# How long, in nanoseconds, the end of the program is held up at most.
_EXIT_TIMEOUT = 1_000_000_000


class Native:
    """One loaded copy of the extension."""

    __slots__ = (
        "account",
        "ask_fleet",
        "await_detached",
        "beat",
        "cancel",
        "close_client",
        "dead_letters",
        "delete",
        "delete_consumer",
        "delete_stream",
        "discard",
        "ensure",
        "forget_client",
        "forget_fleet",
        "forget_member",
        "forget_queue",
        "fork_begin",
        "fork_end",
        "generation",
        "give_back",
        "info",
        "join_fleet",
        "keep",
        "kept",
        "leave_fleet",
        "logs",
        "member_superseded",
        "notifier_close",
        "notifier_open",
        "notifier_take",
        "numbers",
        "open",
        "open_fleet",
        "open_queue",
        "parse_ack_subject",
        "pid",
        "ping",
        "publish",
        "purge",
        "record_fleet",
        "release",
        "requeue",
        "reserve",
        "reserve_any",
        "settle",
        "stats",
        "streams",
        "taken",
        "tickets",
        "unkeep",
        "update_member",
        "wait",
    )

    def __init__(self, module: ModuleType, generation: int) -> None:
        self.pid: int = os.getpid()
        self.generation: int = generation
        # Handles and tickets are chosen here, so that there is something to end them by whenever
        # the call that makes them is interrupted.
        self.numbers: count[int] = count(1)
        self.account: Export = module.pybind_Account
        self.ask_fleet: Export = module.pybind_AskFleet
        self.await_detached: Count = module.pybind_AwaitDetached
        self.beat: Export = module.pybind_Beat
        self.cancel: Count = module.pybind_Cancel
        self.close_client: Export = module.pybind_CloseClient
        self.dead_letters: Export = module.pybind_DeadLetters
        self.delete: Export = module.pybind_Delete
        self.delete_consumer: Export = module.pybind_DeleteConsumer
        self.delete_stream: Export = module.pybind_DeleteStream
        self.discard: Export = module.pybind_Discard
        self.ensure: Export = module.pybind_Ensure
        self.forget_client: Count = module.pybind_ForgetClient
        self.forget_fleet: Count = module.pybind_ForgetFleet
        self.forget_member: Count = module.pybind_ForgetMember
        self.forget_queue: Count = module.pybind_ForgetQueue
        self.fork_begin: Export = module.pybind_ForkBegin
        self.fork_end: Count = module.pybind_ForkEnd
        self.give_back: Count = module.pybind_GiveBack
        self.info: Export = module.pybind_Info
        self.join_fleet: Export = module.pybind_JoinFleet
        self.keep: Export = module.pybind_Keep
        self.kept: Export = module.pybind_Kept
        self.leave_fleet: Export = module.pybind_LeaveFleet
        self.logs: Export = module.pybind_Logs
        self.member_superseded: Export = module.pybind_MemberSuperseded
        self.notifier_close: Export = module.pybind_NotifierClose
        self.notifier_open: Export = module.pybind_NotifierOpen
        self.notifier_take: Export = module.pybind_NotifierTake
        self.open: Export = module.pybind_Open
        self.open_fleet: Export = module.pybind_OpenFleet
        self.open_queue: Export = module.pybind_OpenQueue
        self.parse_ack_subject: Export = module.pybind_ParseAckSubject
        self.ping: Export = module.pybind_Ping
        self.publish: Export = module.pybind_Publish
        self.purge: Export = module.pybind_Purge
        self.record_fleet: Export = module.pybind_RecordFleet
        self.release: Export = module.pybind_Release
        self.requeue: Export = module.pybind_Requeue
        self.reserve: Export = module.pybind_Reserve
        self.reserve_any: Export = module.pybind_ReserveAny
        self.settle: Export = module.pybind_Settle
        self.stats: Export = module.pybind_Stats
        self.streams: Export = module.pybind_Streams
        self.taken: Count = module.pybind_Taken
        self.tickets: Count = module.pybind_Tickets
        self.unkeep: Export = module.pybind_Unkeep
        self.update_member: Export = module.pybind_UpdateMember
        self.wait: Export = module.pybind_Wait

    def is_usable(self, getpid: Callable[[], int] = os.getpid) -> bool:
        """Whether this copy was loaded by this process, not by one that it was forked from."""
        return self.pid == getpid()  # bound early: finalizers run when globals are gone

    def disown(self) -> None:
        """Makes the copy of the process that this one was forked from refuse instead of hang."""
        for name in self.__slots__:
            if name not in ("generation", "numbers", "pid"):
                setattr(self, name, _refuse)
        self.await_detached = self.cancel = _leave


def _refuse(*_: object) -> Any:
    raise ConnectionLost(
        "the process was forked during this call, which goes on in the parent", outcome="unknown"
    )


def _leave(_ticket: int) -> int:
    return 1  # the parent has taken care of it


_current: Native | None = None
_generation = 0
# Held while the extension is being loaded, and while the process is being forked: so no child gets
# a copy that is loaded by half. A signal handler may want it where it is held already.
_lock = RLock()
# The descriptor and the inode of each socket that the fork now under way hands on.
_inherited: list[int] = []


def native() -> Native:
    """The extension of this process, loaded now if need be.

    Raises:
        NotLoaded: it cannot be loaded.
    """
    found = _current
    if found is not None and found.pid == os.getpid():
        return found
    return _load()


def exclusively() -> RLock:
    """The lock of this process for what threads must not do twice. A fork waits for it."""
    return _lock


def _load() -> Native:
    global _current, _generation
    with _lock:
        found = _current
        if found is not None and found.is_usable():
            return found
        if found is not None:
            found.disown()  # forked by something that does not call Python's hooks
        if problem := _interpreter_problem():
            raise NotLoaded(problem)
        path = _FILE if _generation == 0 else None
        # Counted before the attempt: what failed half-way may be in the linker's tables.
        _generation += 1
        generation = _generation
        try:
            module = _import(path) if path else _import_copy(generation)
        except (ImportError, OSError) as error:
            raise NotLoaded(_advice(error, copy=path is None)) from error
        if _current is found:  # else a signal handler has loaded another meanwhile
            _current = Native(module, generation)
        assert _current is not None
        return _current


def _interpreter_problem() -> str:
    """Why the extension must not even be tried, or an empty string."""
    if sys.implementation.name != "cpython":
        return f"natslease needs CPython: this is {sys.implementation.name}"
    if "t" in getattr(sys, "abiflags", ""):
        return (
            "natslease needs Python's global interpreter lock: this is a free-threaded build of "
            f"Python {sys.version.split()[0]}"
        )
    if _is_main_interpreter():
        return ""
    return (
        "natslease works in the main interpreter only, and this is a subinterpreter: mod_wsgi uses "
        "the main one with the setting `WSGIApplicationGroup %{GLOBAL}`"
    )


def _is_main_interpreter() -> bool:
    import _thread

    if hasattr(_thread, "_is_main_interpreter"):  # from Python 3.12
        return bool(_thread._is_main_interpreter())
    try:
        import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]
    except ImportError:
        return True  # nothing is known
    return bool(interpreters.get_current() == interpreters.get_main())


def _import(path: str) -> ModuleType:
    from signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask, valid_signals

    loader = ExtensionFileLoader(_NAME, path)
    # The threads of the Go runtime inherit the mask. One that left a signal unblocked would be
    # given it where all of the program's own threads block it, to wait for it.
    mask = pthread_sigmask(SIG_BLOCK, valid_signals())
    try:
        module = loader.create_module(ModuleSpec(_NAME, loader, origin=path))
    finally:
        pthread_sigmask(SIG_SETMASK, mask)
    loader.exec_module(module)
    return module


def _import_copy(generation: int) -> ModuleType:
    """Loads the extension from a copy of its file, in memory or else in a temporary file."""
    try:
        return _import_from_memory(generation)
    except (AttributeError, ImportError, OSError) as error:
        in_memory = error
    try:
        return _import_temporary()
    except (ImportError, OSError) as error:
        raise ImportError(f"in memory: {in_memory}; as a temporary file: {error}") from error


def _import_from_memory(generation: int) -> ModuleType:
    # Python and the dynamic linker remember libraries by path, which must not occur twice in a line
    # of processes: dots make it longer without changing what it means.
    unique = "/".join(["/proc/self/fd", *["."] * generation])
    fd = os.memfd_create("natslease", os.MFD_CLOEXEC)
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
        text = str(error)
        while "/./" in text:
            text = text.replace("/./", "/")
        return (
            f"a forked process cannot load its copy of natslease: {text}. It needs memfd_create, "
            "or a temporary directory (TMPDIR) to load programs from; a line of processes can fork "
            "about 200 generations deep. As a way out, start processes by spawn, not by fork."
        )
    if not os.path.exists(_FILE):  # noqa: PTH110
        return f"{_FILE} does not exist: install a wheel, or run `make build` in a checkout"
    version = sys.version.split()[0]
    return f"natslease's compiled part cannot be loaded into {version} on {sys.platform}: {error}"


def _at_exit() -> None:
    """Waits, not long, for tasks that are being given back: the process takes them with it."""
    found = _current
    if found is None or not found.is_usable():
        return
    found.give_back()
    slice_ = _EXIT_TIMEOUT // 20
    for _ in range(20):  # in slices, so that it can be interrupted
        if found.await_detached(slice_):
            return


def _before_fork() -> None:
    global _inherited
    _lock.acquire()
    found = _current
    if found is not None and found.is_usable():
        _inherited = list(memoryview(found.fork_begin())[1:].cast("q"))


def _after_fork_in_parent() -> None:
    global _inherited
    found = _current
    _inherited = []
    if found is not None and found.is_usable():
        found.fork_end()
    _lock.release()


def _after_fork_in_child() -> None:
    global _current, _inherited, _lock
    _lock = RLock()
    found, _current = _current, None
    inherited, _inherited = _inherited, []
    if found is not None:
        found.disown()
    for fd, inode in zip(inherited[::2], inherited[1::2], strict=True):
        # Closed, never shut down: that would end the parent's connection. The parent may have
        # closed it just before the fork, and its number be somebody else's now.
        try:
            if os.fstat(fd).st_ino == inode:
                os.close(fd)
        except OSError:  # noqa: PERF203
            pass


atexit.register(_at_exit)
os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
