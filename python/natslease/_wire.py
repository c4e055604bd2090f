"""What crosses the boundary to the core; ``pybind/wire.go`` describes it."""

from __future__ import annotations

from itertools import accumulate, chain
from struct import Struct, pack, unpack_from

from ._errors import from_description

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from ._errors import Error

    # How settling one lease ended: its status, whether it was late, when it runs out now (of
    # CLOCK_MONOTONIC, in nanoseconds; 0 when that does not apply), and the error.
    RawResult = tuple[str, bool, int, Error | None]
    # A lease to release: when it runs out, its ack subject, and where they are at hand its data,
    # id, subject and headers.
    Return = tuple[int, bytes, bytes, bytes, bytes, bytes]

DONE = 0
ERROR = 1
PENDING = 2
LOGS = 128

# The columns of leases, and after them the blob columns.
SEQ, CONSUMER_SEQ, ATTEMPT, BACKLOG, PUBLISHED, EXPIRES = range(6)
DATA, ACK_SUBJECT, ID, SUBJECT, HEADERS = range(5)
_COLUMNS = 6
_BLOB_COLUMNS = 5
_START = 3  # numbers before the first column

STATUSES = ("settled", "gone", "unknown", "expired", "invalid", "rejected")

_number = Struct("<q")
_one_item = Struct("<qqqq")


def _pack(numbers: Sequence[int]) -> bytes:
    return pack(f"<{len(numbers)}q", *numbers)


def _offsets(items: Iterable[bytes]) -> bytes:
    return _pack([0, *accumulate(map(len, items))])


def encode_text(subject: str) -> bytes:
    # What is not Unicode is no ack subject; escaped it stays none, and can be sent to the parser.
    return subject.encode("utf-8", "backslashreplace")


# Answers


def read_error(answer: bytes) -> Error:
    return from_description(read_value(answer))


def read_value(answer: bytes) -> Any:
    from json import loads

    return loads(answer[1:])


def read_nothing(_answer: bytes) -> None:
    return None


def read_number(answer: bytes) -> int:
    number: int = _number.unpack_from(answer, 1)[0]
    return number


def read_numbers(answer: bytes) -> list[int]:
    return list(unpack_from(f"<{len(answer) // 8}q", answer, 1))


def read_any(answer: bytes) -> tuple[LeaseBlock, list[int], dict[str, Any]]:
    """Leases, the place of each one's queue among those asked, and what else there is to say."""
    start = 9
    end = start + read_number(answer)
    block = LeaseBlock(answer[start:end])
    queues = list(unpack_from(f"<{block.n}q", answer, end))
    from json import loads

    return block, queues, loads(answer[end + 8 * block.n :])


class LeaseBlock:
    """The leases of one reserve as they came from the core, taken apart where somebody looks."""

    __slots__ = ("_answer", "_numbers", "clock", "done", "extended", "kept", "n", "retry_after")

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.n: int = read_number(answer)
        n = self.n
        self._numbers = memoryview(answer)[
            1 : 1 + 8 * (_START + _COLUMNS * n + _BLOB_COLUMNS * (n + 1))
        ].cast("q")
        self.clock: int = self._numbers[1]
        self.retry_after: int = self._numbers[2]
        self.done: bytearray = bytearray(n)  # 1 for each lease that is settled
        self.kept: bytearray = bytearray(n)  # 1 for each lease that the core extends
        self.extended: dict[int, int] = {}  # when extended leases run out

    def number(self, column: int, i: int) -> int:
        return self._numbers[_START + column * self.n + i]

    def blob(self, column: int, i: int) -> bytes:
        at = _START + _COLUMNS * self.n + column * (self.n + 1) + i
        return self._answer[self._numbers[at] : self._numbers[at + 1]]

    def expires(self, i: int) -> int:
        return self.extended.get(i) or self.number(EXPIRES, i)

    def headers(self, i: int) -> list[tuple[str, str]]:
        return read_headers(self.blob(HEADERS, i))

    def items(self) -> bytes | None:
        """All leases as items to settle, or None when they must be written one by one."""
        if self.extended:
            return None
        n = self.n
        expires = 1 + 8 * (_START + EXPIRES * n)
        first = _START + _COLUMNS * n + ACK_SUBJECT * (n + 1)
        offsets = 1 + 8 * first
        answer = self._answer
        return b"".join(
            (
                _number.pack(n),
                answer[expires : expires + 8 * n],
                answer[offsets : offsets + 8 * (n + 1)],
                answer[self._numbers[first] : self._numbers[first + n]],
            )
        )


def read_headers(blob: bytes) -> list[tuple[str, str]]:
    headers: list[tuple[str, str]] = []
    at = 0
    while at < len(blob):
        texts = []
        for _ in range(2):
            (length,) = _number.unpack_from(blob, at)
            at += 8
            texts.append(blob[at : at + length].decode("utf-8", "surrogateescape"))
            at += length
        headers.append((texts[0], texts[1]))
    return headers


def read_results(answer: bytes) -> list[RawResult] | int:
    """How settling ended; only their number when each is settled and not late."""
    n, plain = unpack_from("<qq", answer, 1)
    if plain:
        return int(n)
    columns = unpack_from(f"<{4 * n}q", answer, 17)
    errors = _read_errors(answer, 17 + 8 * 4 * n)
    return [
        (STATUSES[status], bool(late), expires, None if error < 0 else errors[error])
        for status, late, expires, error in zip(
            columns[:n], columns[n : 2 * n], columns[2 * n : 3 * n], columns[3 * n :], strict=True
        )
    ]


def read_letters(answer: bytes) -> list[dict[str, Any]]:
    from base64 import b64decode

    letters: list[dict[str, Any]] = read_value(answer)
    for letter in letters:
        letter["data"] = b64decode(letter["data"] or "")
    return letters


class Report:
    """What became of published messages, taken apart only where somebody looks."""

    __slots__ = ("_answer", "_errors", "_numbers", "n")

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        n = self.n = read_number(answer)
        self._numbers = memoryview(answer)[9 : 9 + 8 * (4 * n + 1)].cast("q")
        self._errors = _read_errors(answer, self._numbers[4 * n])

    def id(self, i: int) -> str:
        at = 3 * self.n + i
        return self._answer[self._numbers[at] : self._numbers[at + 1]].decode("utf-8", "replace")

    def seq(self, i: int) -> int:
        return self._numbers[i]

    def duplicate(self, i: int) -> bool:
        return bool(self._numbers[self.n + i])

    def error(self, i: int) -> Error | None:
        if not self._errors:
            return None
        place = self._numbers[2 * self.n + i]
        return None if place < 0 else self._errors[place]


def _read_errors(answer: bytes, at: int) -> list[Error]:
    text = answer[at:]
    if text in (b"[]", b"null"):
        return []
    from json import loads

    return [from_description(description) for description in loads(text)]


# Requests


def write_item(expires: int, ack_subject: bytes) -> bytes:
    return _one_item.pack(1, expires, 0, len(ack_subject)) + ack_subject


def write_items(expires: Sequence[int], ack_subjects: Sequence[bytes]) -> bytes:
    return b"".join(
        (_number.pack(len(expires)), _pack(expires), _offsets(ack_subjects), *ack_subjects)
    )


def write_returns(returns: Sequence[Return]) -> bytes:
    expires, *blobs = zip(*returns, strict=True) if returns else [()] * (1 + _BLOB_COLUMNS)
    return b"".join(
        (
            _number.pack(len(returns)),
            _pack(expires),
            *map(_offsets, blobs),
            *chain(*blobs),
        )
    )


def write_messages(
    data: Sequence[bytes], ids: Sequence[bytes] | None, headers: Sequence[bytes] | None
) -> bytes:
    """Messages; None where none of them has an id, or headers."""
    none = b"" if ids and headers else bytes(8 * (len(data) + 1))
    return b"".join(
        (
            _number.pack(len(data)),
            _offsets(data),
            _offsets(ids) if ids else none,
            _offsets(headers) if headers else none,
            *data,
            *(ids or ()),
            *(headers or ()),
        )
    )


def write_numbers(numbers: Sequence[int]) -> bytes:
    return _pack(numbers)


def write_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    parts: list[bytes] = []
    for pair in headers:
        for text in pair:
            encoded = text.encode("utf-8", "surrogateescape")
            parts += (_number.pack(len(encoded)), encoded)
    return b"".join(parts)


def write_value(value: Any) -> bytes:
    from json import dumps

    return dumps(value).encode()
