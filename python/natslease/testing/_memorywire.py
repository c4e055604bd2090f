"""The core's side of the wire, for queues in memory; ``pybind/wire.go`` describes it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate, pairwise
from struct import pack, unpack_from
from time import monotonic_ns, time_ns
from typing import Any

from natslease import ConfigError, Error
from natslease._types import AccountInfo, Stats
from natslease._wire import DONE, STATUSES, read_error, read_headers, read_value

from ._broker import NS, Consumer, Delivery, Headers, Letter, Stream, Task

__all__ = ["DONE", "read_error", "read_value"]

ORIGINAL_ID = "Natslease-Id"
MESSAGE_ID = "Nats-Msg-Id"
_OURS = (MESSAGE_ID, ORIGINAL_ID)

Lease = tuple[Task, Delivery, int, int]
Place = tuple[str, str]


def done() -> bytes:
    return bytes([DONE])


def pending() -> bytes:
    return b"\2"


def numbers(*values: int) -> bytes:
    return done() + pack(f"<{len(values)}q", *values)


def value(of: Any) -> bytes:
    return done() + json.dumps(of).encode()


def _describe(error: Error) -> dict[str, Any]:
    return {
        "code": error.code,
        "outcome": error.outcome,
        "operation": error.operation,
        "message": str(error),
        "retry_after": error.retry_after,
        "explain": error.explain(),
    }


def error(raised: Error) -> bytes:
    return b"\1" + json.dumps(_describe(raised)).encode()


def _blobs(columns: Sequence[Sequence[bytes]], start: int) -> bytes:
    """Blob columns whose bytes begin at start."""
    offsets = b""
    for column in columns:
        places = [start, *(start + end for end in accumulate(map(len, column)))]
        offsets += pack(f"<{len(places)}q", *places)
        start = places[-1]
    return offsets + b"".join(b"".join(column) for column in columns)


def _header_blob(headers: Headers) -> bytes:
    parts = []
    for pair in sorted(headers):
        for text in pair:
            encoded = text.encode("utf-8", "surrogateescape")
            parts.append(pack("<q", len(encoded)) + encoded)
    return b"".join(parts)


def ack_subject(place: Place, lease: Lease) -> str:
    task, delivery, attempt, behind = lease
    stream, consumer = place
    return (
        f"$JS.ACK.{stream}.{consumer}.{attempt}.{task.seq}.{delivery.consumer_seq}."
        f"{task.published}.{behind}"
    )


def said(place: Place, lease: Lease) -> dict[str, Any]:
    """What the lease's ack subject says."""
    return {"stream": place[0], "consumer": place[1], "seq": lease[0].seq}


def _name(task: Task) -> str:
    return dict(task.headers).get(ORIGINAL_ID, task.id)


def leases(found: Sequence[tuple[Place, Lease]], *, retry_after: int) -> bytes:
    n = len(found)
    taken = [lease for _, lease in found]
    columns = [
        n,
        time_ns() - monotonic_ns(),
        retry_after * NS // 4,
        *(task.seq for task, *_ in taken),
        *(delivery.consumer_seq for _, delivery, *_ in taken),
        *(attempt for *_, attempt, _ in taken),
        *(behind for *_, behind in taken),
        *(task.published for task, *_ in taken),
        *(delivery.expires for _, delivery, *_ in taken),
    ]
    blobs = [
        [task.data for task, *_ in taken],
        [ack_subject(place, lease).encode() for place, lease in found],
        [_name(task).encode() for task, *_ in taken],
        [task.subject.encode() for task, *_ in taken],
        [_header_blob(task.headers) for task, *_ in taken],
    ]
    start = 1 + 8 * (len(columns) + len(blobs) * (n + 1))
    return numbers(*columns) + _blobs(blobs, start)


def any_leases(
    found: Sequence[tuple[Place, Lease]],
    asked: Sequence[int],
    missing: Sequence[int],
    errors: dict[int, Error],
) -> bytes:
    block = leases(found, retry_after=0 if found else 1)
    rest = {"missing": missing, "errors": {str(i): _describe(e) for i, e in errors.items()}}
    places = pack(f"<{len(asked)}q", *asked)
    return numbers(len(block)) + block + places + json.dumps(rest).encode()


def _errors(raised: Iterable[Error | None]) -> tuple[list[int], bytes]:
    """For each its place among the errors, or -1; and the errors."""
    places: list[int] = []
    described: list[dict[str, Any]] = []
    for one in raised:
        places.append(-1 if one is None else len(described))
        if one is not None:
            described.append(_describe(one))
    return places, json.dumps(described, separators=(",", ":")).encode()


def results(settled: Sequence[tuple[str, bool, int, Error | None]], kind: str) -> bytes:
    n = len(settled)
    if kind != "extend" and all(status == "settled" and not late for status, late, *_ in settled):
        return numbers(n, 1)
    places, described = _errors(problem for *_, problem in settled)
    columns = [
        *(STATUSES.index(status) for status, *_ in settled),
        *(int(late) for _, late, *_ in settled),
        *(until for _, _, until, _ in settled),
        *places,
    ]
    return numbers(n, 0, *columns) + described


def report(published: Sequence[tuple[str, int, bool, Error | None]]) -> bytes:
    n = len(published)
    places, described = _errors(problem for *_, problem in published)
    columns = [n, *(s for _, s, *_ in published), *(int(d) for _, _, d, _ in published), *places]
    start = 1 + 8 * (len(columns) + n + 1)
    return (
        numbers(*columns) + _blobs([[name.encode() for name, *_ in published]], start) + described
    )


def info(stream: Stream, consumer: Consumer, *, created: bool = False) -> bytes:
    options = {**stream.options, **{k: consumer.options[k] for k in ("max_deliver",)}}
    return value(
        {
            "stream": stream.name,
            "subject": options["subject"],
            "consumer": consumer.name,
            "created": created,
            "stream_created": stream.created / NS,
            **_sizes(stream),
            **_counts(stream, consumer),
            "max_deliver": consumer.options["max_deliver"],
            "max_ack_pending": consumer.options["max_ack_pending"],
            "ack_wait": consumer.options["ack_wait"] / NS,
            "retention": options["retention"],
            "storage": options["storage"],
            "replicas": options["replicas"],
            "leader": "",
        }
    )


def _sizes(stream: Stream) -> dict[str, int]:
    return {
        "messages": len(stream.tasks),
        "bytes": sum(len(task.data) for task in stream.tasks.values()),
        "first_seq": next(iter(stream.tasks), stream.last_seq + 1),
        "last_seq": stream.last_seq,
    }


def _counts(stream: Stream, consumer: Consumer) -> dict[str, int]:
    given_out = [seq for seq in (*consumer.leased, *consumer.again) if consumer.attempts[seq] > 1]
    return {
        "num_pending": len(stream.waiting(consumer)),
        "num_ack_pending": len(consumer.leased) + len(consumer.again),
        "num_redelivered": len(given_out),
        "num_waiting": 0,
    }


def streams(found: Iterable[Stream], *, consumers: bool) -> bytes:
    listed = []
    for stream in found:
        first = next(iter(stream.tasks.values()), None)
        listed.append(
            {
                "name": stream.name,
                "subjects": stream.subjects,
                "created": stream.created / NS,
                **_sizes(stream),
                "first_at": first.published / NS if first else 0.0,
                "last_at": stream.last_at / NS,
                "retention": stream.options["retention"],
                "storage": stream.options["storage"],
                "replicas": stream.options["replicas"],
                "max_age": stream.options["max_age"] / NS,
                "leader": "",
                "away": [],
                "num_consumers": len(stream.consumers),
                "told": time_ns() / NS,
                "consumers": [
                    {
                        "stream": stream.name,
                        "name": c.name,
                        "subjects": [c.options["subject"]],
                        "created": c.created / NS,
                        **_counts(stream, c),
                        "ack_wait": c.options["ack_wait"] / NS,
                        "max_deliver": c.options["max_deliver"],
                        "max_ack_pending": c.options["max_ack_pending"],
                        "away": [],
                    }
                    for c in (stream.consumers.values() if consumers else ())
                ],
            }
        )
    return value({"streams": listed, "missing": []})


def account(all_streams: Collection[Stream]) -> bytes:
    figures: dict[str, Any] = dict.fromkeys(AccountInfo.__slots__, 0)
    for name in ("max_memory", "max_storage", "max_streams", "max_consumers"):
        figures[name] = -1
    return value(
        {
            **figures,
            "domain": "",
            "streams": len(all_streams),
            "consumers": sum(len(stream.consumers) for stream in all_streams),
        }
    )


def letters(found: Iterable[Letter]) -> bytes:
    return value(
        [
            {
                "stream": letter.stream,
                "consumer": letter.consumer,
                "seq": letter.task.seq,
                "published": letter.task.published,
                "subject": letter.task.subject,
                "id": _name(letter.task),
                "data": b64encode(letter.task.data).decode(),
                "headers": sorted(h for h in letter.task.headers if h[0] not in _OURS),
                "attempts": letter.attempts,
                "reason": letter.reason,
                "worker": letter.worker,
                "died": letter.died,
            }
            for letter in found
        ]
    )


def stats(*, connected: bool, kept: int) -> bytes:
    figures: dict[str, Any] = dict.fromkeys(Stats.__slots__, 0)
    breaker = {"state": "closed", "consecutive_failures": 0, "opened": 0, "retry_after": 0.0}
    return value(
        {
            **figures,
            "connected": connected,
            "generation": 1,
            "server": "memory",
            "server_name": "memory",
            "server_version": "",
            "sessions_opened": 1,
            "last_error": "",
            "kept": kept,
            "breaker": breaker,
        }
    )


# Requests


def _read_blobs(body: bytes, at: int, n: int, columns: int) -> tuple[list[list[bytes]], int]:
    """Blob columns whose offsets begin at a place; returns where their bytes end, too."""
    offsets = [unpack_from(f"<{n + 1}q", body, at + 8 * (n + 1) * c) for c in range(columns)]
    at += 8 * (n + 1) * columns
    read = []
    for column in offsets:
        shift = at - column[0]
        read.append([body[a + shift : b + shift] for a, b in pairwise(column)])
        at += column[-1] - column[0]
    return read, at


def read_numbers(body: bytes) -> list[int]:
    return list(unpack_from(f"<{len(body) // 8}q", body))


def read_items(body: bytes) -> tuple[list[tuple[int, bytes]], str]:
    (n,) = unpack_from("<q", body)
    expires = unpack_from(f"<{n}q", body, 8)
    (subjects,), end = _read_blobs(body, 8 + 8 * n, n, 1)
    return list(zip(expires, subjects, strict=True)), body[end:].decode("utf-8", "replace")


def read_returns(body: bytes) -> list[tuple[int, bytes]]:
    (n,) = unpack_from("<q", body)
    expires = unpack_from(f"<{n}q", body, 8)
    (subjects, *_), _ = _read_blobs(body, 8 + 8 * n, n, 5)
    return list(zip(expires, subjects, strict=True))


def read_messages(body: bytes) -> list[tuple[bytes, str, Headers]]:
    (n,) = unpack_from("<q", body)
    (data, ids, headers), _ = _read_blobs(body, 8, n, 3)
    return [
        (payload, name.decode(), tuple(read_headers(blob)))
        for payload, name, blob in zip(data, ids, headers, strict=True)
    ]


def read_names(body: bytes) -> list[tuple[str, str, int, int]]:
    return [(n["stream"], n["consumer"], n["seq"], n["published"]) for n in json.loads(body)]


# Checks that the core makes when it is asked


def check_headers(headers: Headers) -> None:
    for name, text in headers:
        if not name or any(c in " :\r\n\t" or not c.isprintable() for c in name):
            raise ConfigError(f"headers: {name!r} is no name of a header", outcome="rejected")
        if any(c in "\r\n" for c in text):
            raise ConfigError(f"headers: {name}: a value must be one line", outcome="rejected")


def range_problem(name: str, number: int, most: int) -> bytes | None:
    if 1 <= number <= most:
        return None
    text = f"{name} is {number}: it must be from 1 to {most}"
    return error(ConfigError(text, outcome="rejected"))


def filter_problem(asked: dict[str, Any]) -> bytes | None:
    pattern, subject = asked["pattern"], asked.get("subject") or "one"
    if pattern and pattern.count("[") == pattern.count("]") and all(subject.split(".")):
        return None
    wrong = "subject" if pattern and pattern.count("[") == pattern.count("]") else "pattern"
    return error(ConfigError(f"{wrong}: {asked[wrong]!r} is none", outcome="rejected"))
