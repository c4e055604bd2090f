"""Queues: one JetStream stream, a subject and a durable pull consumer."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from time import monotonic_ns, sleep

from . import _wire
from ._errors import ConfigError, Error
from ._lease import Lease, LeaseBase, LeaseBatch
from ._native import exclusively
from ._operation import Operation, duration, run, run_call
from ._types import DeadLetter, Message, PublishReport, QueueInfo, SettleResult
from ._typing import Generic, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Literal

    from ._client import ClientBase
    from ._native import Export, Native
    from ._operation import Call, Running
    from ._types import Conflict, ReportPart

    Kind = Literal["ack", "nak", "release", "extend", "term"]

L = TypeVar("L", bound="LeaseBase[Any]")
Q = TypeVar("Q", bound="QueueBase[Any]")

_KINDS: dict[Kind, int] = {"ack": 1, "nak": 2, "release": 3, "extend": 4, "term": 5}
_SETTLED = SettleResult("settled")
_GIVE_BACK_TIMEOUT = 5_000_000_000
# What one crossing of the boundary takes when much is published: the core sees no end of memory.
_CHUNK_BYTES = 4 << 20
_CHUNK_MESSAGES = 16_384


class QueueHandle:
    """A queue as one copy of the extension knows it."""

    __slots__ = ("native", "number")

    def __init__(self, native: Native) -> None:
        self.native = native
        self.number = next(native.numbers)

    def __del__(self) -> None:
        if self.native.is_usable():
            self.native.forget_queue(self.number)


class QueueBase(Generic[L]):
    """What is asked of a queue, whichever way it is asked."""

    __slots__ = ("__weakref__", "_client", "_handle", "_options")

    _lease: type[L]

    def __init__(self, client: ClientBase, options: dict[str, Any]) -> None:
        self._client = client
        self._options = options
        self._handle: QueueHandle | None = None
        self._attach()  # checks the options

    @property
    def stream(self) -> str:
        """The stream's name."""
        return str(self._options["stream"])

    @property
    def subject(self) -> str:
        """The subject that tasks are published to."""
        return str(self._options.get("subject") or self.stream)

    @property
    def consumer(self) -> str:
        """The consumer's name."""
        return str(self._options.get("consumer") or self.stream)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.stream}, consumer {self.consumer}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (type(self), self._client, self._options)

    def _attach(self) -> QueueHandle:
        handle = self._handle
        if handle is not None and handle.native.is_usable():
            return handle
        client = self._client._attach()
        with exclusively():
            handle = self._handle
            if handle is not None and handle.native is client.native:
                return handle
            handle = QueueHandle(client.native)
            answer = client.native.open_queue(
                handle.number, client.number, _wire.write_value(self._options)
            )
            if answer[0] == _wire.ERROR:
                raise _wire.read_error(answer)
            self._handle = handle
            return handle

    def _timeout(self, timeout: float | None, wait: int = 0) -> int:
        if timeout is None:
            return wait + self._client._timeout
        return self._client._limit(timeout, wait)

    # Each of the following describes one operation.

    def _ensure(self, conflict: Conflict, timeout: float | None) -> Operation[QueueInfo]:
        if conflict not in ("keep", "update", "error"):
            raise ConfigError(
                f"conflict: is {conflict!r}: use keep, update or error", outcome="rejected"
            )
        queue = self._attach()
        return Operation(
            queue.native,
            queue.native.ensure,
            (queue.number,),
            self._timeout(timeout),
            _read_info,
            conflict.encode(),
        )

    def _info(self, timeout: float | None) -> Operation[QueueInfo]:
        queue = self._attach()
        return Operation(
            queue.native, queue.native.info, (queue.number,), self._timeout(timeout), _read_info
        )

    def _purge(self, timeout: float | None) -> Operation[int]:
        queue = self._attach()
        return Operation(
            queue.native,
            queue.native.purge,
            (queue.number,),
            self._timeout(timeout),
            _wire.read_value,
        )

    def _delete(self, timeout: float | None) -> Operation[bool]:
        queue = self._attach()
        return Operation(
            queue.native,
            queue.native.delete,
            (queue.number,),
            self._timeout(timeout),
            _wire.read_value,
        )

    def _delete_consumer(self, timeout: float | None) -> Operation[bool]:
        queue = self._attach()
        return Operation(
            queue.native,
            queue.native.delete_consumer,
            (queue.number,),
            self._timeout(timeout),
            _wire.read_value,
        )

    def _reserve(self, n: int, wait: float, timeout: float | None) -> Operation[LeaseBatch[L]]:
        wait_ns = check_reserve(n, wait)
        queue = self._attach()
        native = queue.native
        return Operation(
            native,
            native.reserve,
            (queue.number, n, wait_ns),
            self._timeout(timeout, wait_ns),
            self._read_batch,
            None,
            self._give_back,
        )

    def _read_batch(self, answer: bytes) -> LeaseBatch[L]:
        block = _wire.LeaseBlock(answer)
        lease = self._lease
        batch = LeaseBatch([lease(block, i, self) for i in range(block.n)])
        batch.retry_after = block.retry_after / 1e9
        return batch

    def _give_back(self, answer: bytes) -> None:
        """Releases the leases of an answer that no caller sees. Does not wait."""
        self._detach("release", self._read_batch(answer))

    def _detach(self, kind: Kind, leases: list[L]) -> None:
        operation = self._settle(kind, leases, None)
        operation.timeout = _GIVE_BACK_TIMEOUT
        operation.start(0, 0, 0)

    def _settle_one(
        self,
        kind: Kind,
        lease: L,
        timeout: float | None,
        *,
        delay: float = 0.0,
        reason: str = "",
    ) -> Operation[SettleResult]:
        block, i = lease._block, lease._index

        def read(answer: bytes) -> SettleResult:
            results = _wire.read_results(answer)
            if isinstance(results, int):
                block.done[i] = 1
                return _SETTLED
            result = _mark(block, i, kind, results[0])
            if result.error is not None:
                raise result.error
            return result

        if kind == "release":
            body = _wire.write_returns([_return_of(lease)])
        else:
            body = _wire.write_item(block.expires(i), block.blob(_wire.ACK_SUBJECT, i))
        return self._operation_on_items(kind, body, timeout, delay, reason, read)

    def _settle(
        self,
        kind: Kind,
        leases: Iterable[L | str],
        timeout: float | None,
        *,
        delay: float = 0.0,
        reason: str = "",
    ) -> Operation[list[SettleResult]]:
        block = _whole_block(leases)
        items = _check_items(leases) if block is None else list(leases)

        def read(answer: bytes) -> list[SettleResult]:
            results = _wire.read_results(answer)
            if isinstance(results, int):
                if block is not None:
                    block.done[:] = b"\1" * results
                else:
                    for item in items:
                        if not isinstance(item, str):
                            item._block.done[item._index] = 1
                return [_SETTLED] * results
            return [
                _plain(raw) if isinstance(item, str) else _mark(item._block, item._index, kind, raw)
                for item, raw in zip(items, results, strict=True)
            ]

        if kind == "release":
            body = _wire.write_returns([_return_of(item) for item in items])
        else:
            whole = None if block is None else block.items()
            body = _wire.write_items(*_columns(items)) if whole is None else whole
        return self._operation_on_items(kind, body, timeout, delay, reason, read)

    def _operation_on_items(
        self,
        kind: Kind,
        body: bytes,
        timeout: float | None,
        delay: float,
        reason: str,
        read: Any,
    ) -> Operation[Any]:
        queue = self._attach()
        native = queue.native
        if kind == "release":
            return Operation(
                native, native.release, (queue.number,), self._timeout(timeout), read, body
            )
        delay_ns = duration("delay", delay, zero=True) if delay else 0
        if reason:
            body += reason.encode("utf-8", "replace")
        return Operation(
            native,
            native.settle,
            (queue.number, _KINDS[kind], delay_ns),
            self._timeout(timeout),
            read,
            body,
        )

    def _publish(
        self, messages: Iterable[bytes | Message], timeout: float | None
    ) -> Call[PublishReport]:
        data, ids, headers = _message_columns(messages)
        limit = self._timeout(timeout)
        queue = self._attach()
        native = queue.native
        started = monotonic_ns()
        parts: list[ReportPart] = []
        running: Running[_wire.Report] | None = None
        sent = 0
        for start, end in [*_chunks(data), (len(data), len(data))]:
            # One chunk is written out while the one before it is under way. They are sent in turn,
            # which keeps the messages in their order.
            chunk = slice(start, end)
            body = _wire.write_messages(data[chunk], ids and ids[chunk], headers and headers[chunk])
            if running is not None:
                outcome: _wire.Report | Error = yield running
                if isinstance(outcome, Error):
                    parts.append(_Failed(outcome, start - sent))
                else:
                    parts.append(outcome)
            if start == end:
                break
            left = max(limit - (monotonic_ns() - started), 1)
            running = yield Operation(
                native, native.publish, (queue.number,), left, _wire.Report, body
            )
            sent = start
        failures = [part.whole for part in parts if isinstance(part, _Failed)]
        if failures and len(failures) == len(parts):
            raise failures[0]  # nothing was sent
        return PublishReport(parts)

    def _dead_letters(self, limit: int, timeout: float | None) -> Operation[list[DeadLetter]]:
        if limit.__class__ is not int:
            raise TypeError(f"limit: is {type(limit).__name__}: give a whole number")
        if not 0 < limit < 1 << 62:
            raise ConfigError(f"limit: is {limit}: it must be from 1 to 10000", outcome="rejected")
        queue = self._attach()
        return Operation(
            queue.native,
            queue.native.dead_letters,
            (queue.number, limit),
            self._timeout(timeout),
            _read_letters,
        )

    def _requeue(
        self, letters: Iterable[DeadLetter], timeout: float | None
    ) -> Operation[PublishReport]:
        queue = self._attach()
        return Operation(
            queue.native,
            queue.native.requeue,
            (queue.number,),
            self._timeout(timeout),
            lambda answer: PublishReport([_wire.Report(answer)]),
            _write_letters(letters),
        )

    def _discard(self, letters: Iterable[DeadLetter], timeout: float | None) -> Operation[int]:
        queue = self._attach()
        return Operation(
            queue.native,
            queue.native.discard,
            (queue.number,),
            self._timeout(timeout),
            _wire.read_value,
            _write_letters(letters),
        )

    def _on_kept(self, export: str, items: list[L | str], *arguments: int) -> bytes:
        queue = self._attach()
        call: Export = getattr(queue.native, export)
        answer = call(queue.number, *arguments, _wire.write_items(*_columns(items)))
        if answer[0] == _wire.ERROR:
            raise _wire.read_error(answer)
        return answer

    def _look_up(self, items: list[L | str]) -> None:
        """Takes note of when leases run out that were extended without our doing."""
        until = _wire.read_numbers(self._on_kept("kept", items))
        for item, expires in zip(items, until, strict=True):
            if expires and not isinstance(item, str):
                item._block.extended[item._index] = expires

    def keep(
        self,
        leases: Iterable[L | str],
        *,
        max_hold: float = 3600.0,
        heartbeat: float | None = None,
    ) -> None:
        """Has leases extended until they are settled, even while Python is busy. Costs no request
        now.

        Args:
            leases: leases of this queue, or ack subjects.
            max_hold: seconds after which that ends, whatever happens.
            heartbeat: seconds without ``beat`` after which it ends, too: whoever hangs loses them.
                Left out, it need not be called.

        Raises:
            InvalidLease: one is not a lease of this queue.
        """
        items = _check_items(leases)
        silent = 0 if heartbeat is None else duration("heartbeat", heartbeat)
        self._on_kept("keep", items, duration("max_hold", max_hold), silent)
        for item in items:
            if not isinstance(item, str):
                item._block.kept[item._index] = 1

    def beat(self, leases: Iterable[L | str] | None = None) -> None:
        """Says that whoever has these kept leases is at work; left out, all of the queue's. Costs
        no request.
        """
        items = [] if leases is None else _check_items(leases)
        if items or leases is None:
            self._on_kept("beat", items)

    def unkeep(self, leases: Iterable[L | str]) -> None:
        """Lets leases run out as they would have without ``keep``."""
        items = _check_items(leases)
        self._look_up(items)
        self._on_kept("unkeep", items)
        for item in items:
            if not isinstance(item, str):
                item._block.kept[item._index] = 0


def _unpickle(kind: type[Q], client: ClientBase, options: dict[str, Any]) -> Q:
    queue = kind.__new__(kind)
    queue._client = client
    queue._options = options
    queue._handle = None
    return queue


def check_reserve(n: int, wait: float) -> int:
    """Checks what a reserve asks for, and returns its wait in nanoseconds."""
    if n.__class__ is not int:
        raise TypeError(f"n: is {type(n).__name__}: give a whole number")
    if not -(1 << 62) < n < 1 << 62:
        raise ConfigError(f"n: is {n}: it must be from 1 to 10000", outcome="rejected")
    return duration("wait", wait, zero=True) if wait else 0


def _read_info(answer: bytes) -> QueueInfo:
    return QueueInfo(**_wire.read_value(answer))


def _read_letters(answer: bytes) -> list[DeadLetter]:
    return [DeadLetter(fields) for fields in _wire.read_letters(answer)]


def _write_letters(letters: Iterable[DeadLetter]) -> bytes:
    items = list(letters)
    for i, item in enumerate(items):
        if not isinstance(item, DeadLetter):
            raise TypeError(f"letters: item {i} is {type(item).__name__}: give dead letters")
    return _wire.write_value([item._name() for item in items])


def _check_items(leases: Iterable[L | str]) -> list[L | str]:
    if isinstance(leases, (str, bytes, LeaseBase)):
        raise TypeError(f"leases: is one {type(leases).__name__}: give a list")
    items = list(leases)
    for i, item in enumerate(items):
        if not isinstance(item, (LeaseBase, str)):
            raise TypeError(
                f"leases: item {i} is {type(item).__name__}: give leases or ack subjects (str)"
            )
    return items


def _whole_block(leases: Any) -> _wire.LeaseBlock | None:
    """The block of which these are all the leases, in their order, if there is one."""
    if not isinstance(leases, list) or not leases:
        return None
    try:
        block: _wire.LeaseBlock = leases[0]._block
        if (
            len(leases) == block.n
            and [lease._index for lease in leases] == list(range(block.n))
            and [lease._block for lease in leases] == [block] * block.n
        ):
            return block
    except AttributeError:  # an ack subject is among them
        pass
    return None


def _columns(items: list[Any]) -> tuple[list[int], list[bytes]]:
    expires, subjects = [], []
    for item in items:
        if isinstance(item, str):
            expires.append(0)
            subjects.append(_wire.encode_text(item))
        else:
            expires.append(item._block.expires(item._index))
            subjects.append(item._block.blob(_wire.ACK_SUBJECT, item._index))
    return expires, subjects


def _return_of(item: LeaseBase[Any] | str) -> _wire.Return:
    if isinstance(item, str):
        return 0, _wire.encode_text(item), b"", b"", b"", b""
    block, i = item._block, item._index
    return (
        block.expires(i),
        block.blob(_wire.ACK_SUBJECT, i),
        block.blob(_wire.DATA, i),
        block.blob(_wire.ID, i),
        block.blob(_wire.SUBJECT, i),
        block.blob(_wire.HEADERS, i),
    )


def _plain(raw: _wire.RawResult) -> SettleResult:
    status, late, _, error = raw
    return SettleResult(status, late, error)  # type: ignore[arg-type]


def _mark(block: _wire.LeaseBlock, i: int, kind: Kind, raw: _wire.RawResult) -> SettleResult:
    """The result of settling lease i of a block, which the block takes note of."""
    status, _, expires, _ = raw
    if status == "settled":
        if kind != "extend":
            block.done[i] = 1
        elif expires:
            block.extended[i] = expires
    return _plain(raw)


class _Failed:
    """The part of a report for messages whose operation has failed as a whole."""

    __slots__ = ("n", "whole")

    def __init__(self, error: Error, n: int) -> None:
        self.whole = error
        self.n = n

    def id(self, _: int) -> str:
        return ""

    def seq(self, _: int) -> int:
        return 0

    def duplicate(self, _: int) -> bool:
        return False

    def error(self, _: int) -> Error | None:
        return self.whole


def _message_columns(
    messages: Iterable[bytes | Message],
) -> tuple[list[bytes], list[bytes] | None, list[bytes] | None]:
    """Payloads, and ids and headers if any message has one."""
    if isinstance(messages, (str, bytes, bytearray, memoryview, Message)):
        raise TypeError(f"messages: is one {type(messages).__name__}: give a list")
    items = list(messages)
    if {type(item) for item in items} <= {bytes}:
        return items, None, None  # type: ignore[return-value]
    data, ids, headers = [], [], []
    for i, item in enumerate(items):
        message = item if isinstance(item, Message) else Message(item)
        data.append(_payload(i, message.data))
        ids.append(_encode(i, "id", message.id) if message.id is not None else b"")
        headers.append(_headers(i, message) if message.headers else b"")
    return data, ids, headers


def _payload(i: int, data: Any) -> bytes:
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    hint = ": encode it" if isinstance(data, str) else ""
    raise TypeError(f"messages: item {i} is {type(data).__name__}, not bytes or Message{hint}")


def _encode(i: int, what: str, text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"messages: item {i}: {what} is {type(text).__name__}, not str")
    if not text:
        raise ConfigError(f"messages: item {i}: {what} is empty", outcome="rejected")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"messages: item {i}: {what} cannot be encoded: {error}", outcome="rejected"
        ) from None


def _headers(i: int, message: Message) -> bytes:
    pairs: list[tuple[str, str]] = []
    for name, values in (message.headers or {}).items():
        _encode(i, "a header's name", name)
        for value in [values] if isinstance(values, str) else values:
            if not isinstance(value, str):
                raise TypeError(f"messages: item {i}: header {name} is not text: {value!r:.50}")
            pairs.append((name, value))
    return _wire.write_headers(pairs)


def _chunks(data: list[bytes]) -> Iterator[tuple[int, int]]:
    """Where to cut what is published."""
    ends = list(accumulate(map(len, data)))
    start = before = 0
    while start < len(data):
        # One message at least, however large.
        end = max(bisect_right(ends, before + _CHUNK_BYTES), start + 1)
        end = min(end, start + _CHUNK_MESSAGES)
        yield start, end
        start, before = end, ends[end - 1]


class Consuming(Generic[L]):
    """Yields the leases of a batch, kept until whoever works on them has moved past them."""

    __slots__ = ("_current", "_left", "_queue")

    def __init__(self, queue: QueueBase[L], batch: LeaseBatch[L], max_hold: float) -> None:
        queue.keep(batch, max_hold=max_hold)
        self._queue = queue
        self._left = iter(batch)
        self._current: L | None = None

    def __enter__(self) -> Consuming[L]:
        return self

    def __iter__(self) -> Consuming[L]:
        return self

    def __next__(self) -> L:
        self._finish()
        self._current = next(self._left)
        return self._current

    def _finish(self) -> None:
        if self._current is not None and not self._current.settled:
            self._queue.unkeep([self._current])
        self._current = None

    def __exit__(self, *_: object) -> None:
        self._finish()
        if left := list(self._left):
            self._queue.unkeep(left)
            self._queue._detach("release", left)


class Queue(QueueBase[Lease]):
    """One JetStream stream, a subject and a durable pull consumer; made by ``Client.queue``.

    Safe for use by any number of threads, and in forked children. Every method takes ``timeout``,
    in seconds, and returns by it; left out it is the client's, for ``reserve`` on top of ``wait``.
    """

    __slots__ = ()

    _lease = Lease

    def ensure(self, *, conflict: Conflict = "keep", timeout: float | None = None) -> QueueInfo:
        """Creates the stream and the consumer where they are missing.

        Args:
            conflict: what to do when they exist with another configuration: ``"keep"`` it,
                ``"update"`` it, or raise an ``"error"`` that names every difference.
            timeout: seconds; left out, the client's.

        Raises:
            ConfigError: they exist with another configuration, and conflict is ``"error"``.
            PermissionDenied: the server's permissions forbid it.
            Unavailable: the connection failed, or there is no leader.
            DeadlineExceeded: it was not done in time; it is safe to do again.
        """
        return run(self._ensure(conflict, timeout))

    def info(self, *, timeout: float | None = None) -> QueueInfo:
        """Asks the server about the queue.

        Raises:
            QueueNotFound: the stream or the consumer does not exist.
            Unavailable: the connection failed, or there is no leader.
            DeadlineExceeded: no answer in time.
        """
        return run(self._info(timeout))

    def purge(self, *, timeout: float | None = None) -> int:
        """Removes the queue's messages from the stream, leased ones too, and returns how many there
        were.

        Raises:
            QueueNotFound: the stream does not exist.
            Unavailable: the connection failed, or there is no leader.
            DeadlineExceeded: no answer in time; it may have happened.
        """
        return run(self._purge(timeout))

    def delete(self, *, timeout: float | None = None) -> bool:
        """Removes the consumer and, unless other consumers use it, the stream.

        Returns:
            False when there was neither.

        Raises:
            Unavailable: the connection failed, or there is no leader.
            DeadlineExceeded: no answer in time; it may have happened.
        """
        return run(self._delete(timeout))

    def delete_consumer(self, *, timeout: float | None = None) -> bool:
        """Removes the consumer and leaves the stream with its tasks.

        Returns:
            False when there was none.

        Raises:
            Error: as ``delete``.
        """
        return run(self._delete_consumer(timeout))

    def publish(
        self, messages: Iterable[bytes | Message], *, timeout: float | None = None
    ) -> PublishReport:
        """Puts tasks into the queue, and waits for the server's word on each.

        What a lost connection leaves unanswered is sent again once, under the same id, so that it
        cannot be enqueued twice. A message that fails does not raise: see ``failed`` of the report.

        Args:
            messages: payloads, or a ``Message`` with its id and headers.
            timeout: seconds for all of them; left out, the client's.

        Raises:
            TypeError, ConfigError: a message is none; nothing was sent.
            PayloadTooLarge: above what the server accepts, if none can be sent.
            Unavailable, PermissionDenied, AuthenticationFailed: nothing could be sent.
        """
        return run_call(self._publish(messages, timeout))

    def reserve(
        self, n: int = 1, *, wait: float = 0.0, timeout: float | None = None
    ) -> LeaseBatch[Lease]:
        """Takes up to n tasks, each for ``ack_wait``.

        Args:
            n: at most so many, 1 to 10,000.
            wait: seconds to wait for the first task; what is there at that moment is returned at
                once.
            timeout: seconds; left out, ``wait`` and the client's; else longer than ``wait``.

        Returns:
            A list of leases. An empty one means that the queue is empty; its ``retry_after`` tells
            when to ask again.

        Raises:
            QueueNotFound: the stream or the consumer does not exist.
            Saturated: ``max_ack_pending`` is reached: leases must be settled first.
            Unavailable: the connection failed, there is no leader, or too many calls are in flight.
            DeadlineExceeded: whether there is a task could not be found out in time.
        """
        return run(self._reserve(n, wait, timeout))

    def ack(
        self, leases: Iterable[Lease | str], *, timeout: float | None = None
    ) -> list[SettleResult]:
        """Settles leases as done, and waits for the server's word on each.

        Args:
            leases: leases of this queue, or ack subjects from another process.
            timeout: seconds for all of them; left out, the client's.

        Returns:
            How it ended for each, in their order. What happens to one never raises.

        Raises:
            TypeError: an item is neither a lease nor a str; nothing was sent.
            ClientClosed, Busy: nothing was sent.
        """
        return run(self._settle("ack", leases, timeout))

    def nak(
        self,
        leases: Iterable[Lease | str],
        *,
        delay: float = 0.0,
        reason: str = "",
        timeout: float | None = None,
    ) -> list[SettleResult]:
        """Gives tasks back because they failed. As ``ack``.

        Args:
            delay: seconds until they are offered again.
            reason: what the dead letter says, should this have been the last attempt.
        """
        return run(self._settle("nak", leases, timeout, delay=delay, reason=reason))

    def release(
        self, leases: Iterable[Lease | str], *, timeout: float | None = None
    ) -> list[SettleResult]:
        """Gives tasks back that were not started; never wears them out. As ``ack``."""
        return run(self._settle("release", leases, timeout))

    def extend(
        self, leases: Iterable[Lease | str], *, timeout: float | None = None
    ) -> list[SettleResult]:
        """Starts the leases' time anew, and moves their ``expires_at``. As ``ack``."""
        return run(self._settle("extend", leases, timeout))

    def term(
        self, leases: Iterable[Lease | str], reason: str = "", *, timeout: float | None = None
    ) -> list[SettleResult]:
        """Settles tasks as failed for good, with a reason for the server's advisory. As ``ack``."""
        return run(self._settle("term", leases, timeout, reason=reason))

    def dead_letters(self, limit: int = 100, *, timeout: float | None = None) -> list[DeadLetter]:
        """Tasks that have failed on their last attempt, the oldest first; for a queue that was made
        with the option ``dead_letters``.

        Those that were NAKed are there at once; those whose last taker died, when a later reserve
        has met them.

        Args:
            limit: at most so many, 1 to 10,000.
            timeout: seconds; left out, the client's.

        Raises:
            ConfigError: the queue keeps no dead letters.
            QueueNotFound: the queue or the stream of the dead letters does not exist.
            Unavailable: the connection failed, or there is no leader.
            DeadlineExceeded: no answer in time.
        """
        return run(self._dead_letters(limit, timeout))

    def requeue(
        self, letters: Iterable[DeadLetter], *, timeout: float | None = None
    ) -> PublishReport:
        """Makes tasks of dead letters again, and takes them off the dead letters.

        Their message ids are fresh, ``lease.id`` stays the same. A letter that is no longer there,
        because somebody else has requeued it, fails with ``LeaseGone``.

        Args:
            letters: from ``dead_letters``.
            timeout: seconds for all of them; left out, the client's.

        Raises:
            TypeError, ConfigError: an item is no dead letter, or the queue keeps none.
            Unavailable, PermissionDenied: nothing was sent.
        """
        return run(self._requeue(letters, timeout))

    def discard(self, letters: Iterable[DeadLetter], *, timeout: float | None = None) -> int:
        """Takes letters off the dead letters without making tasks of them.

        Args:
            letters: from ``dead_letters``.
            timeout: seconds for all of them; left out, the client's.

        Returns:
            How many of them were still there.

        Raises:
            TypeError, ConfigError: an item is no dead letter of this queue, or the queue keeps
                none.
            Unavailable, PermissionDenied, DeadlineExceeded: some may have been taken off.
        """
        return run(self._discard(letters, timeout))

    def consume(
        self,
        n: int = 1,
        *,
        wait: float = 30.0,
        max_hold: float = 3600.0,
        timeout: float | None = None,
    ) -> Iterator[Lease]:
        """Reserves in a loop without end, and yields the leases one by one.

        Leases are kept (see ``keep``) from when they are reserved until the loop has moved past
        them. What was not yielded when the loop is left is released.

        Args:
            n: how many to reserve at a time.
            wait: seconds to wait for the first of them; an empty queue is asked again.
            max_hold: seconds for which leases are kept at most.
            timeout: seconds for each reserve, as there.

        Raises:
            Error: as ``reserve``; the loop can be entered again.
        """
        while True:
            batch = self.reserve(n, wait=wait, timeout=timeout)
            if not batch:
                if wait == 0:
                    sleep(batch.retry_after)
                continue
            with Consuming(self, batch, max_hold) as leases:
                yield from leases
