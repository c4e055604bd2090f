"""Looks at a client's NATS system, and says what to do about what it finds.

>>> for finding in examine(Client.from_env()):
...     print(finding.status, finding.check, finding.text, finding.advice)

Nothing is changed, except that with ``trial`` a queue is made, used and deleted.
"""

from __future__ import annotations

import json
import secrets
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import TYPE_CHECKING, NamedTuple

from . import _errors as errors
from ._types import Message

if TYPE_CHECKING:
    from typing import Any, Literal

    from ._client import Client
    from ._queue import Queue
    from ._types import StreamInfo

_OLDEST = (2, 10, 26)
_RECOMMENDED = (2, 12, 3)
_SLOW = 0.050
_FULL = 0.8
_SKEW = 2.0
_PINGS = 5
_MONITOR_TIMEOUT = 5.0
# A leader that is new has not heard of anybody yet.
_LOOKS = 3
_BETWEEN_LOOKS = 1.0
# A message that is meant for a stream that cannot be: every stream refuses it, with this number.
_MEANT_FOR = {"Nats-Expected-Stream": "natslease.doctor"}
_REFUSED = "(10060)"


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        check: what: "connection", "round trip", "server", "jetstream", "limits", "clock",
            "durability", "queues", "permissions" or "trial".
        status: "ok"; "warning": it works, and may not always; "failed": it does not work.
        text: what was found.
        advice: what to do about it; "" when it is ok.
    """

    check: str
    status: Literal["ok", "warning", "failed"]
    text: str
    advice: str = ""


def examine(
    client: Client,
    *,
    pattern: str = "*",
    queue: Queue | None = None,
    monitor: str = "",
    trial: bool = False,
    timeout: float = 5.0,
) -> Iterator[Finding]:
    """Yields what it finds, one after the other.

    Args:
        pattern: the names of the streams to look at.
        queue: one to try permissions on: to look at it, to publish to it, by a message that its
            stream refuses, and to take a task, which is given back at once.
        monitor: the URL of the server's monitoring port, ``http://host:8222``: only there does it
            tell how often it writes to disk.
        trial: whether to make a queue, publish, reserve and acknowledge a task, and delete it.
        timeout: seconds for each question.
    """
    try:
        yield from _connection(client, timeout)
        yield from _jetstream(client, timeout)
    except errors.Error as error:
        yield _explained(error)
        return
    interval = None
    if monitor:
        try:
            interval = _sync_interval(monitor)
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            text = f"the monitoring port does not tell: {error or type(error).__name__}"
            advice = "Give the URL of the server's option http or http_port."
            yield Finding("durability", "warning", text, advice)
    yield from _streams(client, pattern, timeout, interval)
    if queue is not None:
        yield from _permissions(queue, timeout)
    if trial:
        yield _trial(client, timeout)


def _connection(client: Client, timeout: float) -> Iterator[Finding]:
    client.ping(timeout=timeout)
    stats = client.stats()
    yield Finding("connection", "ok", f"connected to {stats.server_name} at {stats.server}")
    rtt = sorted(client.ping(timeout=timeout) for _ in range(_PINGS))[_PINGS // 2]
    text = f"{rtt * 1e3:.2f} ms"
    if rtt > _SLOW:
        advice = "Every reserve and every ack takes at least that long: run NATS nearer, and batch."
        yield Finding("round trip", "warning", text, advice)
    else:
        yield Finding("round trip", "ok", text)
    yield _version(stats.server_version)


def _version(text: str) -> Finding:
    try:
        version = tuple(int(part) for part in text.split("-")[0].split(".")[:3])
    except ValueError:
        version = ()
    if version < _OLDEST:
        return Finding(
            "server",
            "failed",
            f"nats-server {text or 'of an unknown version'}",
            f"natslease needs {_dotted(_OLDEST)} or later; use {_dotted(_RECOMMENDED)} or later.",
        )
    if version < _RECOMMENDED:
        advice = f"{_dotted(_RECOMMENDED)} or later is recommended: it loses less when it crashes."
        return Finding("server", "warning", f"nats-server {text}", advice)
    return Finding("server", "ok", f"nats-server {text}")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _jetstream(client: Client, timeout: float) -> Iterator[Finding]:
    try:
        account = client.account(timeout=timeout)
    except errors.PermissionDenied as error:
        yield Finding(
            "jetstream",
            "warning",
            f"the account cannot be looked at: {error}",
            "Fine for a worker.",
        )
        return
    where = f" in the domain {account.domain}" if account.domain else ""
    yield Finding(
        "jetstream",
        "ok",
        f"{account.streams} streams, {account.consumers} consumers{where}",
    )
    for what, used, most in (
        ("bytes on disk", account.storage, account.max_storage),
        ("bytes in memory", account.memory, account.max_memory),
        ("streams", account.streams, account.max_streams),
        ("consumers", account.consumers, account.max_consumers),
    ):
        if most > 0:
            full = used >= _FULL * most
            yield Finding(
                "limits",
                "warning" if full else "ok",
                f"{used:,} of {most:,} {what}",
                "Raise the account's limit, or delete streams: past it, publishing fails."
                if full
                else "",
            )


def _streams(
    client: Client, pattern: str, timeout: float, sync_interval: float | None
) -> Iterator[Finding]:
    try:
        streams = client.streams(pattern, consumers=True, timeout=timeout)
    except errors.Error as error:
        yield Finding("queues", "warning", f"streams cannot be listed: {error}", _advice(error))
        return
    for name in streams.missing:
        advice = "Look at the servers of the cluster: it has no leader, or its servers are down."
        yield Finding("queues", "failed", f"{name} is not available", advice)
    if streams:
        yield _clock(streams[0])
    yield from _replicas(client, pattern, timeout, streams)
    for stream in streams:
        yield from _durability(stream, sync_interval)
        for consumer in stream.consumers:
            if 0 < consumer.max_ack_pending <= consumer.num_ack_pending:
                yield Finding(
                    "queues",
                    "warning",
                    f"{stream.name}: all {consumer.max_ack_pending} leases of {consumer.name} are "
                    "out: nothing is given out until some are settled",
                    "Look for workers that hold tasks; else raise max_ack_pending.",
                )


def _clock(stream: StreamInfo) -> Finding:
    skew = abs(stream.told - time.time())
    if skew < _SKEW:
        return Finding("clock", "ok", "the server's clock agrees with this machine's")
    return Finding(
        "clock",
        "warning",
        f"the server's clock differs by {skew:.1f} s from this machine's",
        "Leases do not mind; ages that are shown do. Run NTP on both.",
    )


def _replicas(
    client: Client, pattern: str, timeout: float, streams: list[StreamInfo]
) -> Iterator[Finding]:
    away = _away(streams)
    try:
        for _ in range(_LOOKS - 1):
            if away:
                time.sleep(_BETWEEN_LOOKS)
                away &= _away(client.streams(pattern, consumers=True, timeout=timeout))
    except errors.Error as error:
        yield Finding("queues", "warning", f"streams cannot be listed: {error}", _advice(error))
        return
    for server in sorted({server for server, _ in away}):
        first, *more = sorted(name for there, name in away if there == server)
        others = f" and {len(more)} more" if more else ""
        yield Finding(
            "queues",
            "warning",
            f"{server} is offline or not heard: it has a replica of {first}{others}",
            "Start it, or look at its disk and network, before another server fails: without a "
            "majority nothing is stored.",
        )


def _away(streams: list[StreamInfo]) -> set[tuple[str, str]]:
    """Servers that are away, each with a stream of which, or of a consumer, it has a replica."""
    return {
        (server, stream.name)
        for stream in streams
        for away in (stream.away, *(consumer.away for consumer in stream.consumers))
        for server in away
    }


def _durability(stream: StreamInfo, sync_interval: float | None) -> Iterator[Finding]:
    if stream.storage == "memory":
        yield Finding(
            "durability",
            "warning",
            f"{stream.name} is kept in memory: a restart of its server empties it",
            'Use storage="file" for tasks that must not be lost.',
        )
    elif stream.replicas > 1:
        yield Finding("durability", "ok", f"{stream.name} has {stream.replicas} replicas")
    elif sync_interval == 0:
        yield Finding("durability", "ok", f"{stream.name}: the server syncs every write")
    else:
        interval = (
            f"every {sync_interval:g} s"
            if sync_interval is not None
            else "every 2 minutes, unless it is configured otherwise (name its monitoring port, "
            "and this is looked up)"
        )
        yield Finding(
            "durability",
            "warning",
            f"{stream.name} has one replica, and its server writes to disk {interval}",
            "What was accepted since then is lost with the machine's power. Set `sync_interval: "
            "always` in the server's jetstream block, or use 3 replicas; and apply results "
            "idempotently.",
        )


def _sync_interval(monitor: str) -> float:
    """Seconds between two writes to disk; 0 when each is written at once."""
    url = f"{monitor.rstrip('/')}/varz"
    with urllib.request.urlopen(url, timeout=_MONITOR_TIMEOUT) as response:
        found = json.load(response)["jetstream"]["config"]
    return 0.0 if found.get("sync_always") else float(found["sync_interval"]) / 1e9


def _permissions(queue: Queue, timeout: float) -> Iterator[Finding]:
    yield _permitted("look at", queue, lambda: queue.info(timeout=timeout))
    yield _may_publish(queue, timeout)

    def reserve() -> None:
        for result in queue.release(queue.reserve(1, timeout=timeout), timeout=timeout):
            if result.error is not None:
                raise result.error

    yield _permitted("take tasks from", queue, reserve)


def _may_publish(queue: Queue, timeout: float) -> Finding:
    try:
        for result in queue.publish([Message(b"", headers=_MEANT_FOR)], timeout=timeout).failed:
            assert result.error is not None
            raise result.error
    except errors.QueueNotFound:
        text = f"no stream takes {queue.subject}: whether this client can publish is not known"
        advice = "Name the subject that tasks are published to (--subject), or make the queue."
        return Finding("permissions", "warning", text, advice)
    except errors.ServerError as error:
        if _REFUSED not in str(error):
            return _forbidden("publish to", queue, error)
    except errors.Error as error:
        return _forbidden("publish to", queue, error)
    return Finding("permissions", "ok", f"this client can publish to {queue.stream}")


def _permitted(what: str, queue: Queue, call: Callable[[], Any]) -> Finding:
    try:
        call()
    except errors.Error as error:
        return _forbidden(what, queue, error)
    return Finding("permissions", "ok", f"this client can {what} {queue.stream}")


def _forbidden(what: str, queue: Queue, error: errors.Error) -> Finding:
    text = f"this client cannot {what} {queue.stream}: {error}"
    return Finding("permissions", "failed", text, _advice(error))


def _trial(client: Client, timeout: float) -> Finding:
    name = f"natslease_doctor_{secrets.token_hex(4)}"
    queue = client.queue(name, ack_wait=60, storage="memory")
    began = time.perf_counter()
    step = "make a queue"
    try:
        try:
            queue.ensure(timeout=timeout)
            step = "publish"
            for failed in queue.publish([b"natslease doctor"], timeout=timeout).failed:
                assert failed.error is not None
                raise failed.error
            step = "reserve"
            for lease in queue.reserve(1, wait=timeout / 2, timeout=timeout):
                step = "acknowledge"
                lease.ack(timeout=timeout)
            if step == "reserve":
                raise errors.DeadlineExceeded("no task came", operation="reserve")
        finally:
            queue.delete(timeout=timeout)
    except errors.Error as error:
        return Finding("trial", "failed", f"this client cannot {step}: {error}", _advice(error))
    took = (time.perf_counter() - began) * 1e3
    return Finding(
        "trial", "ok", f"made a queue, took a task through it, and deleted it, in {took:.1f} ms"
    )


def _explained(error: errors.Error) -> Finding:
    check = "jetstream" if error.operation == "account" else "connection"
    return Finding(check, "failed", error.explain(), _advice(error))


def _advice(error: errors.Error) -> str:
    for kind, advice in (
        (errors.AuthenticationFailed, "Check user, password, token or credentials file."),
        (
            errors.PermissionDenied,
            "See docs/reference/permissions.md for what each kind of process needs.",
        ),
        (errors.QueueNotFound, "Make it with queue.ensure()."),
        (
            errors.QueueUnavailable,
            "Enable JetStream (`nats-server -js`, or a jetstream block, also for the account); in "
            "a cluster see that a majority of the servers is up.",
        ),
        (errors.ConnectFailed, "See that the server runs, and that host, port and firewall agree."),
        (errors.StorageFull, "Delete streams, or give the server, or the account, more room."),
        (errors.DeadlineExceeded, "The server is slow or frozen: look at its machine and its log."),
    ):
        if isinstance(error, kind):
            return advice
    return "Look at the server's log."
