"""What crosses the boundary: both sides' tests read the same files.

``go test ./pybind -update`` writes the answers anew, this file run as a program the requests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import natslease
from natslease import _wire

FOLDER = Path(__file__).parents[1] / "data" / "wire"
ACK = b"$JS.ACK.images.workers.3.17.21.1700000000123456789.5"
EXPIRES = 35_000_000_000
HEADERS = [("A", "1"), ("B", "2"), ("B", "ü")]


def golden(name: str) -> bytes:
    return (FOLDER / f"{name}.bin").read_bytes()


def letters() -> list[natslease.DeadLetter]:
    return [natslease.DeadLetter(fields) for fields in _wire.read_letters(golden("answer-letters"))]


def requests() -> dict[str, bytes]:
    headers = _wire.write_headers(HEADERS)
    lease = (EXPIRES, ACK, b"\0data\xff", b"task-17", b"image.tasks", headers)
    return {
        "request-items": _wire.write_items([EXPIRES, 0], [ACK, b"x"]) + "broken ü".encode(),
        "request-returns": _wire.write_returns([lease, (0, b"x", b"", b"", b"", b"")]),
        "request-messages": _wire.write_messages(
            [b"", b"\0data\xff"], [b"", b"task-17"], [b"", headers]
        ),
        "request-names": _wire.write_value([letters()[0]._name()]),
    }


@pytest.mark.parametrize("name", requests())
def test_requests(name: str) -> None:
    assert requests()[name] == golden(name)


def test_one_item_is_written_as_a_list_of_one() -> None:
    assert _wire.write_item(EXPIRES, ACK) == _wire.write_items([EXPIRES], [ACK])


def test_error() -> None:
    answer = golden("answer-error")
    assert answer[0] == _wire.ERROR
    error = _wire.read_error(answer)
    assert type(error) is natslease.ConnectionLost
    assert (error.code, error.outcome, error.operation) == ("connection_lost", "unknown", "ack")
    assert error.retry_after == 0.25
    assert str(error) == "ack: the connection ended (it may have happened)"


def test_pending() -> None:
    assert golden("answer-pending") == bytes([_wire.PENDING])


def test_numbers() -> None:
    assert _wire.read_numbers(golden("answer-numbers")) == [-1, 0, 1 << 62]


def test_leases() -> None:
    block = _wire.LeaseBlock(golden("answer-leases"))
    assert (block.n, block.retry_after) == (2, 0)
    assert [block.number(column, 0) for column in range(6)] == [
        17, 21, 3, 5, 1_700_000_000_123_456_789, EXPIRES
    ]  # fmt: skip
    assert block.blob(_wire.DATA, 0) == b"\0data\xff"
    assert block.blob(_wire.ACK_SUBJECT, 0) == ACK
    assert block.blob(_wire.ID, 0) == b"task-17"
    assert block.blob(_wire.SUBJECT, 0) == b"image.tasks"
    assert block.headers(0) == HEADERS
    assert [block.blob(column, 1) for column in range(5)] == [b"", b"x", b"", b"", b""]
    assert block.clock == 1_700_000_095_000_000_000
    # All of them as items to settle, without taking them apart.
    assert same_items(block)


def same_items(block: _wire.LeaseBlock) -> bool:
    """Whether items differ from those written one by one only in what offsets count from."""
    items = block.items()
    assert items is not None
    written = _wire.write_items([EXPIRES, 0], [ACK, b"x"])
    offsets = slice(8 * 3, 8 * 6)
    ours, theirs = (memoryview(b[offsets]).cast("q") for b in (items, written))
    assert [o - ours[0] for o in ours] == list(theirs)
    return items[: offsets.start] + items[offsets.stop :] == (
        written[: offsets.start] + written[offsets.stop :]
    )


def test_no_leases() -> None:
    block = _wire.LeaseBlock(golden("answer-empty"))
    assert (block.n, block.retry_after) == (0, 250_000_000)


def test_results() -> None:
    assert _wire.read_results(golden("answer-plain")) == 2
    results = _wire.read_results(golden("answer-results"))
    assert isinstance(results, list)
    assert [status for status, *_ in results] == list(_wire.STATUSES)
    assert [late for _, late, *_ in results] == [True, False, False, False, False, False]
    assert [expires for _, _, expires, _ in results] == [0, 0, 0, 6_000_000_000, 0, 0]
    errors = [error for *_, error in results]
    assert [type(error).__name__ for error in errors] == [
        "NoneType", "ConnectionLost", "ConnectionLost", "NoneType", "NoneType", "NoneType"
    ]  # fmt: skip


def test_report() -> None:
    report = _wire.Report(golden("answer-report"))
    places = range(report.n)
    assert [report.id(i) for i in places] == ["a", "bb", "ü", "d"]
    assert [report.seq(i) for i in places] == [7, 3, 0, 0]
    assert [report.duplicate(i) for i in places] == [False, True, False, False]
    errors = [report.error(i) for i in places]
    assert errors[:2] == [None, None]
    assert isinstance(errors[2], natslease.ConnectionLost)
    assert errors[3] is errors[2]


def test_letters() -> None:
    letter, bare = letters()
    assert (letter.stream, letter.consumer, letter.seq) == ("images", "workers", 17)
    assert (letter.subject, letter.id, letter.data) == ("image.tasks", "task-17", b"\0data\xff")
    assert letter.headers == {"A": "1", "B": "2"}
    assert letter.header_values("B") == ["2", "ü"]
    assert (letter.attempts, letter.reason, letter.worker) == (3, "broken ü", "a worker")
    assert letter.published_at == pytest.approx(1_700_000_000.123456789)
    assert letter.died_at == 1_700_000_060
    assert (bare.data, bare.headers) == (b"", {})


if __name__ == "__main__":
    for name, request in requests().items():
        (FOLDER / f"{name}.bin").write_bytes(request)
