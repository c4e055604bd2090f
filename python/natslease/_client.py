"""Clients: the way to the queues of one NATS system."""

from __future__ import annotations

import os
import sys

from . import _wire
from ._errors import ClientClosed, ConfigError, from_description
from ._lease import AnyBatch
from ._native import exclusively, native
from ._operation import Operation, duration, run
from ._queue import Queue, QueueBase, check_reserve
from ._types import AccountInfo, BreakerStats, ConsumerInfo, Stats, StreamInfo, StreamList
from ._typing import TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Any

    from ._lease import Lease, LeaseBase  # noqa: F401 (in a string)
    from ._native import Native

    # A secret, or a function that returns it.
    Secret = str | Callable[[], str]

C = TypeVar("C", bound="ClientBase")
Q = TypeVar("Q", bound="QueueBase[Any]")
L = TypeVar("L", bound="LeaseBase[Any]")

_FORGET_TIMEOUT = 5_000_000_000
_DEFAULT_TIMEOUT = 5.0
_SECRETS = ("user", "password", "token", "credentials", "nkey_seed")
_ENVIRONMENT = {
    "NATS_URL": "servers",
    "NATS_USER": "user",
    "NATS_PASSWORD": "password",
    "NATS_TOKEN": "token",
    "NATS_CREDS": "credentials_file",
    "NATS_NKEY_SEED": "nkey_seed",
    "NATS_CA": "tls_ca",
    "NATS_CERT": "tls_cert",
    "NATS_KEY": "tls_key",
    "NATS_DOMAIN": "domain",
    "NATS_INBOX_PREFIX": "inbox_prefix",
    "NATS_TIMEOUT": "timeout",
}


class ClientHandle:
    """A client as one copy of the extension knows it."""

    __slots__ = ("native", "number")

    def __init__(self, native: Native) -> None:
        self.native = native
        self.number = next(native.numbers)

    def __del__(self) -> None:
        if self.number and self.native.is_usable():
            self.native.forget_client(self.number, _FORGET_TIMEOUT)


class ClientBase:
    """The options of a client, and what is asked of it, whichever way it is asked."""

    __slots__ = ("__weakref__", "_closed", "_from_env", "_handle", "_options", "_timeout")

    # What the client asks: natslease.testing.Memory has another.
    _load = staticmethod(native)

    def __init__(
        self,
        servers: str | Sequence[str] = "nats://localhost:4222",
        *,
        timeout: float = _DEFAULT_TIMEOUT,
        name: str | None = None,
        user: Secret | None = None,
        password: Secret | None = None,
        token: Secret | None = None,
        credentials: Secret | None = None,
        credentials_file: str | os.PathLike[str] | None = None,
        nkey_seed: Secret | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        tls_server_name: str | None = None,
        tls_first: bool = False,
        domain: str | None = None,
        inbox_prefix: str | None = None,
        connect_timeout: float = 5.0,
        silence_timeout: float = 0.5,
        max_in_flight: int = 256,
        max_queue_wait: float = 1.0,
    ) -> None:
        """Checks the options. Nothing is sent: the first call that needs a connection opens it.

        The clients of a process that have equal options share one connection.

        Args:
            servers: URLs, tried in random order: ``nats://host:port``, ``tls://``, ``ws://`` or
                ``wss://``; one, a list, or several with commas between them.
            timeout: seconds for a call that is not given its own.
            name: of the connection, as the server shows it; left out: program, host and process id.
            user: with ``password``. Each secret may also be a function that returns it.
            token: instead of user and password.
            credentials: the contents of a credentials file.
            credentials_file: its path; it is read anew for each connection.
            nkey_seed: the seed of a user's nkey.
            tls_ca: path of the certificates of authorities; left out: the system's.
            tls_cert: path of this client's certificate, with ``tls_key``.
            tls_server_name: the name that the server's certificate must be for.
            tls_first: TLS before the server has said anything.
            domain: the JetStream domain of the queues.
            inbox_prefix: what the connection's inbox begins with; "_INBOX" when left out.
            connect_timeout: seconds for opening a connection, over all servers.
            silence_timeout: seconds without a byte after which the server is asked for a sign of
                life, and as many again after which the connection ends.
            max_in_flight: how many reserves, and apart from them how many other calls, this process
                has under way at most.
            max_queue_wait: seconds to wait for a place among them, before ``Busy`` is raised.

        Raises:
            ConfigError: an option is wrong; the text names all that are.
            TypeError: an option has the wrong type.
        """
        self._from_env: dict[str, Any] | None = None
        self._handle: ClientHandle | None = None
        self._closed = False
        self._timeout = duration("timeout", timeout)
        options: dict[str, Any] = {
            "servers": _servers(servers),
            "timeout": self._timeout,
            "connect_timeout": duration("connect_timeout", connect_timeout),
            "silence_timeout": duration("silence_timeout", silence_timeout),
            "max_queue_wait": duration("max_queue_wait", max_queue_wait),
            "max_in_flight": whole("max_in_flight", max_in_flight),
            "tls_first": bool(tls_first),
        }
        for option, path in (
            ("credentials_file", credentials_file),
            ("tls_ca", tls_ca),
            ("tls_cert", tls_cert),
            ("tls_key", tls_key),
        ):
            if path is not None:
                options[option] = os.fspath(path)
        for option, value in (
            ("name", name),
            ("user", user),
            ("password", password),
            ("token", token),
            ("credentials", credentials),
            ("nkey_seed", nkey_seed),
            ("tls_server_name", tls_server_name),
            ("domain", domain),
            ("inbox_prefix", inbox_prefix),
        ):
            if value is None:
                continue
            if not isinstance(value, str) and not (option in _SECRETS and callable(value)):
                raise TypeError(f"{option}: is {type(value).__name__}: it must be a str")
            options[option] = value
        self._options = options
        self._attach()  # checks the options

    @classmethod
    def from_env(cls: type[C], environ: Mapping[str, str] | None = None, **options: Any) -> C:
        """A client with options from environment variables; those given here come first.

        Read are ``NATS_URL`` (several with commas), ``NATS_USER``, ``NATS_PASSWORD``,
        ``NATS_TOKEN``, ``NATS_CREDS`` (a path), ``NATS_NKEY_SEED``, ``NATS_CA``, ``NATS_CERT``,
        ``NATS_KEY`` (paths), ``NATS_DOMAIN``, ``NATS_INBOX_PREFIX`` and ``NATS_TIMEOUT`` (seconds).
        Empty ones count as unset.

        Args:
            environ: the variables; left out, the process's.

        Raises:
            ConfigError: an option is wrong; the text names all that are.
        """
        found: dict[str, Any] = {}
        for variable, option in _ENVIRONMENT.items():
            if value := (os.environ if environ is None else environ).get(variable):
                found[option] = value
        if "timeout" in found:
            try:
                found["timeout"] = float(found["timeout"])
            except ValueError:
                raise ConfigError(
                    f"NATS_TIMEOUT: is {found['timeout']!r}: give seconds", outcome="rejected"
                ) from None
        client = cls(**{**found, **options})
        if environ is None:
            client._from_env = options
        return client

    def __repr__(self) -> str:
        state = "closed" if self._closed else self.stats().server or "not connected"
        return f"<{type(self).__name__} {state}>"

    def __copy__(self: C) -> C:
        copied = _unpickle(type(self), self._options)  # which nothing changes
        copied._from_env = self._from_env
        return copied

    def __deepcopy__(self: C, _memo: dict[int, Any]) -> C:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._from_env is not None:
            return _unpickle_env, (type(self), self._from_env)
        literal = [o for o in _SECRETS[1:] if isinstance(self._options.get(o), str)]
        if any("@" in server for server in self._options["servers"]):
            literal.append("servers")
        if literal:
            raise ConfigError(
                f"a client with a secret ({', '.join(literal)}) is not pickled: use "
                "credentials_file, Client.from_env(), or a module's function that returns it",
                outcome="rejected",
            )
        return _unpickle, (type(self), self._options)

    def _attach(self) -> ClientHandle:
        handle = self._handle
        if handle is not None and handle.native.is_usable():
            return handle
        if self._closed:
            raise ClientClosed("the client was closed: open another")
        here = self._load()
        options = {
            option: value() if callable(value) else value for option, value in self._options.items()
        }
        if "name" not in options:
            program = os.path.basename(sys.argv[0] or sys.executable)  # noqa: PTH119
            options["name"] = f"{program} {os.uname().nodename} {os.getpid()}"
        with exclusively():
            handle = self._handle
            if handle is not None and handle.native is here:
                return handle
            handle = ClientHandle(here)
            answer = here.open(handle.number, _wire.write_value(options))
            if answer[0] == _wire.ERROR:
                raise _wire.read_error(answer)
            self._handle = handle
            return handle

    def _queue(self, kind: type[Q], options: Mapping[str, Any]) -> Q:
        checked: dict[str, Any] = {}
        for option, value in options.items():
            if value is None:
                continue
            if option in ("ack_wait", "duplicate_window"):
                checked[option] = duration(option, value)
            elif option == "max_age":
                checked[option] = duration(option, value, zero=True)
            elif option in ("max_bytes", "max_messages"):
                checked[option] = whole(option, value, zero=True)
            elif option in ("max_ack_pending", "max_deliver", "replicas"):
                checked[option] = whole(option, value)
            elif isinstance(value, str):
                checked[option] = value
            else:
                raise TypeError(f"{option}: is {type(value).__name__}: it must be a str")
        for option in ("consumer", "dead_letters", "subject"):
            if checked.get(option) == "":
                raise ConfigError(f"{option}: is empty", outcome="rejected")
        return kind(self, checked)

    def _limit(self, timeout: float | None, wait: int = 0) -> int:
        """A call's time in nanoseconds."""
        if timeout is None:
            return wait + self._timeout
        limit = duration("timeout", timeout)
        if wait >= limit:
            raise ConfigError(
                f"wait: is {wait / 1e9:g} s: it must be shorter than the timeout, {timeout:g} s",
                outcome="rejected",
            )
        return limit

    def _reserve_any(
        self, queues: Iterable[QueueBase[L]], n: int, wait: float, timeout: float | None
    ) -> Operation[AnyBatch[L]]:
        asked = list(queues)
        if not all(issubclass(kind, QueueBase) for kind in set(map(type, asked))):
            for i, queue in enumerate(asked):
                if not isinstance(queue, QueueBase):
                    raise TypeError(f"queues: item {i} is {type(queue).__name__}: give queues")
        wait_ns = check_reserve(n, wait)
        client = self._attach()
        native = client.native
        handles = [queue._handle or queue._attach() for queue in asked]
        if any(handle.native is not native for handle in handles):  # before a fork
            handles = [queue._attach() for queue in asked]

        def read(answer: bytes) -> AnyBatch[L]:
            block, places, rest = _wire.read_any(answer)
            batch = AnyBatch(
                asked[place]._lease(block, i, asked[place]) for i, place in enumerate(places)
            )
            batch.retry_after = block.retry_after / 1e9
            batch.missing = [asked[place] for place in rest["missing"] or ()]
            batch.errors = {
                asked[int(place)]: from_description(error)
                for place, error in rest["errors"].items()
            }
            return batch

        def give_back(answer: bytes) -> None:
            by_queue: dict[QueueBase[L], list[L]] = {}
            for lease in read(answer):
                by_queue.setdefault(lease.queue, []).append(lease)
            for queue, leases in by_queue.items():
                queue._detach("release", leases)

        return Operation(
            native,
            native.reserve_any,
            (client.number, n, wait_ns),
            self._limit(timeout, wait_ns),
            read,
            _wire.write_numbers([handle.number for handle in handles]),
            give_back,
        )

    def _ping(self, timeout: float | None) -> Operation[float]:
        client = self._attach()
        limit = self._limit(timeout)
        return Operation(
            client.native,
            client.native.ping,
            (client.number,),
            limit,
            lambda a: _wire.read_number(a) / 1e9,
        )

    def _account(self, timeout: float | None) -> Operation[AccountInfo]:
        client = self._attach()
        return Operation(
            client.native,
            client.native.account,
            (client.number,),
            self._limit(timeout),
            lambda answer: AccountInfo(**_wire.read_value(answer)),
        )

    def _streams(
        self, pattern: str, subject: str | None, consumers: bool, timeout: float | None
    ) -> Operation[StreamList]:
        asked: dict[str, Any] = {"pattern": text("pattern", pattern), "consumers": bool(consumers)}
        if subject is not None:
            asked["subject"] = text("subject", subject)
        client = self._attach()
        return Operation(
            client.native,
            client.native.streams,
            (client.number,),
            self._limit(timeout),
            _read_streams,
            _wire.write_value(asked),
        )

    def _delete_stream(self, name: str, timeout: float | None) -> Operation[bool]:
        client = self._attach()
        return Operation(
            client.native,
            client.native.delete_stream,
            (client.number,),
            self._limit(timeout),
            _wire.read_value,
            text("name", name).encode("utf-8", "surrogateescape"),
        )

    def _close(self, timeout: float | None) -> Operation[None] | None:
        limit = self._limit(timeout)
        handle, self._handle = self._handle, None
        if self._closed or handle is None or not handle.native.is_usable():
            self._closed = True
            return None
        self._closed = True
        number, handle.number = (
            handle.number,
            0,
        )  # it is not to be forgotten while it is being closed
        return Operation(
            handle.native, handle.native.close_client, (number,), limit, _wire.read_nothing
        )

    def stats(self) -> Stats:
        """What is known of the connection, and what it has done. Costs no request.

        Raises:
            ClientClosed: the client was closed.
        """
        client = self._attach()
        answer = client.native.stats(client.number)
        if answer[0] == _wire.ERROR:
            raise _wire.read_error(answer)
        figures = _wire.read_value(answer)
        return Stats(**{**figures, "breaker": BreakerStats(**figures["breaker"])})


def _read_streams(answer: bytes) -> StreamList:
    found = _wire.read_value(answer)
    streams = StreamList(
        StreamInfo(**{**fields, "consumers": [ConsumerInfo(**c) for c in fields["consumers"]]})
        for fields in found["streams"]
    )
    streams.missing = found["missing"]
    return streams


def _unpickle(kind: type[C], options: dict[str, Any]) -> C:
    client = kind.__new__(kind)
    client._from_env = None
    client._handle = None
    client._closed = False
    client._timeout = options["timeout"]
    client._options = options
    return client


def _unpickle_env(kind: type[C], options: dict[str, Any]) -> C:
    return kind.from_env(**options)


def _servers(servers: Any) -> list[str]:
    listed = [servers] if isinstance(servers, str) else list(servers)
    for server in listed:
        if not isinstance(server, str):
            raise TypeError(f"servers: has {type(server).__name__}: URLs must be str")
    return listed


def text(name: str, value: Any) -> str:
    """Checks a text that must not be empty."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: is {type(value).__name__}: it must be a str")
    if not value:
        raise ConfigError(f"{name}: is empty", outcome="rejected")
    return value


def whole(name: str, value: Any, *, zero: bool = False) -> int:
    """Checks a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: is {type(value).__name__}: it must be a whole number")
    if value == 0 and not zero:
        raise ConfigError(f"{name}: is 0: it must be positive", outcome="rejected")
    if not -(1 << 62) < value < 1 << 62:
        raise ConfigError(f"{name}: is {value}: that is too large", outcome="rejected")
    return value


class Client(ClientBase):
    """The way to the queues of one NATS system, for synchronous code.

    Safe for use by any number of threads. A forked child can go on using it, and gets a connection
    of its own. As a context manager it is closed at the end of the block.
    """

    __slots__ = ()

    def queue(
        self,
        stream: str,
        *,
        subject: str | None = None,
        consumer: str | None = None,
        dead_letters: str | None = None,
        ack_wait: float | None = None,
        max_deliver: int | None = None,
        max_ack_pending: int | None = None,
        max_age: float | None = None,
        max_bytes: int | None = None,
        max_messages: int | None = None,
        discard: str | None = None,
        duplicate_window: float | None = None,
        retention: str | None = None,
        storage: str | None = None,
        replicas: int | None = None,
    ) -> Queue:
        """Names a queue, and says how ``Queue.ensure`` creates it. Nothing is sent.

        Args:
            stream: the name of the stream.
            subject: what tasks are published to; left out, the stream's name.
            consumer: the name of the durable pull consumer; left out, the stream's name.
            dead_letters: the name of the stream that keeps tasks which have failed on their last
                attempt, see ``Queue.dead_letters``; queues can share it. Left out: none.
            ack_wait: seconds that a lease lasts; 60 when left out. Leases go by that of the
                consumer.
            max_deliver: how often a task is given out, 5 when left out; -1: without end.
            max_ack_pending: how many tasks can be leased at the same time; 1,000 when left out.
            max_age: seconds that a task stays in the stream; 0, or left out: until it is settled.
            max_bytes: how large the stream can be; 0, or left out: no limit.
            max_messages: how many messages it can have; 0, or left out: no limit.
            discard: at these limits, "new" tasks are refused (as when left out), or "old" ones
                dropped.
            duplicate_window: seconds for which the server remembers ids; 120 when left out.
            retention: "workqueue": a task leaves the stream when it is settled (as when left out);
                "limits": only by its age and the stream's limits.
            storage: "file", as when left out, or "memory".
            replicas: how many servers of a cluster keep the stream, 1 to 5; 1 when left out.

        Raises:
            ConfigError: an option is wrong; the text names all that are.
            TypeError: an option has the wrong type.
        """
        options = {name: value for name, value in locals().items() if name != "self"}
        return self._queue(Queue, options)

    def reserve_any(
        self,
        queues: Iterable[Queue],
        n: int = 1,
        *,
        wait: float = 0.0,
        timeout: float | None = None,
    ) -> AnyBatch[Lease]:
        """Takes up to n tasks from any of the queues, hundreds of which may be empty.

        Queues that are known to have tasks share what is asked; the others are looked at in turn.

        Args:
            queues: queues of this client, or of one with the same options.
            n: at most so many from all of them together, 1 to 10,000.
            wait: seconds to wait for the first task of any of them.
            timeout: seconds; left out, ``wait`` and the client's; else longer than ``wait``.

        Returns:
            A list of leases, each with its ``queue``. ``missing`` has the queues that do not exist,
            ``errors`` what else is wrong with some. An empty list means that the others are empty.

        Raises:
            Error: as ``Queue.reserve``, when something is wrong with all of the queues.
        """
        return run(self._reserve_any(queues, n, wait, timeout))

    def account(self, *, timeout: float | None = None) -> AccountInfo:
        """Asks the server about the account's use of JetStream, and its limits.

        Raises:
            Unavailable: the connection failed, or JetStream is off.
            PermissionDenied: the server's permissions forbid it.
            DeadlineExceeded: no answer in time.
        """
        return run(self._account(timeout))

    def streams(
        self,
        pattern: str = "*",
        *,
        subject: str | None = None,
        consumers: bool = False,
        timeout: float | None = None,
    ) -> StreamList:
        """Lists the account's streams, however many, with what is in them.

        Args:
            pattern: what their names look like: ``*`` stands for any characters, ``?`` for one,
                ``[0-9]`` for one of a range.
            subject: only streams that take this subject.
            consumers: lists each stream's consumers, too, at the cost of a request for each stream,
                a few at a time.
            timeout: seconds for all of it; left out, the client's.

        Returns:
            A list by name; empty when there are none. Its ``missing`` names streams of a cluster
            whose servers did not answer.

        Raises:
            ConfigError: pattern or subject is none.
            Unavailable: the connection failed, or JetStream is off.
            PermissionDenied: the server's permissions forbid it.
            DeadlineExceeded: not all of it could be read in time.
        """
        return run(self._streams(pattern, subject, consumers, timeout))

    def delete_stream(self, name: str, *, timeout: float | None = None) -> bool:
        """Removes a stream with its consumers and messages.

        Returns:
            False when there was none.

        Raises:
            Unavailable: the connection failed, or there is no leader.
            PermissionDenied: the server's permissions forbid it.
            DeadlineExceeded: no answer in time; it may have happened.
        """
        return run(self._delete_stream(name, timeout))

    def ping(self, *, timeout: float | None = None) -> float:
        """Asks the server for a sign of life, and returns how long it took, in seconds.

        Raises:
            Unavailable: no server could be reached, or the connection was lost.
            DeadlineExceeded: no sign in time.
            AuthenticationFailed: the server does not accept the credentials.
        """
        return run(self._ping(timeout))

    def close(self, *, timeout: float | None = None) -> None:
        """Detaches the client. The last one of a connection closes it, after giving back late
        tasks: those, too, that the server may still send because of a reserve that was interrupted
        while it waited, which takes up to 2 seconds.

        Raises:
            DeadlineExceeded: not everything could be given back in time; the client is closed all
                the same.
        """
        operation = self._close(timeout)
        if operation is not None:
            run(operation)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
