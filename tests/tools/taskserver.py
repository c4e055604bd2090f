"""A small server that gives out tasks over HTTP as Antenna does, and fails on command."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TOKEN = "secret-token"


class Entry:
    """A task, as the server has it."""

    def __init__(self, job: int, number: int) -> None:
        self.job = job
        self.number = number
        self.attempt = 0
        self.since = 0.0  # when it was leased, on the monotonic clock
        self.expires = 0.0
        self.result: Any = None
        self.state = "pending"  # leased, done, dead
        self.holder = ""

    @property
    def lease(self) -> str:
        return f"$JS.ACK.job_{self.job}.c.{self.attempt}.{self.number}.1.1.0"


class TaskServer:
    """Jobs with tasks, leases that run out, workers that are fenced.

    ``fail(what, n, path)`` breaks the next n requests whose path has ``path`` in it: a status, such
    as ``"500"`` or ``"503"``; ``"html"``, ``"truncated"``, ``"reset"``, ``"lost"`` (done, but the
    answer never comes), or ``"nonsense"``.
    """

    def __init__(self, *, ack_wait: float = 30.0, max_deliver: int = 2, old: bool = False) -> None:
        self.ack_wait = ack_wait
        self.max_deliver = max_deliver
        self.old = old  # as it is today: no list of jobs at once, no workers, no extensions
        self.retry_after = "0.2"
        self.gate = threading.Event()  # polls wait while it is not set
        self.gate.set()
        self.tasks: dict[int, dict[int, Entry]] = {}
        self.requests: list[tuple[float, str, dict[str, Any]]] = []
        self.given: Counter[str] = Counter()  # tasks by the worker's pid
        self.polled: Counter[str] = Counter()
        self.held_for: list[float] = []  # from lease to result, in seconds
        self._workers: dict[tuple[str, str, str], int] = {}
        self.registered = 0
        self._faults: deque[tuple[str, str]] = deque()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        handler = type("Handler", (_Handler,), {"tasks": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        self.base = f"http://127.0.0.1:{self._http.server_address[1]}/api/v2"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> TaskServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    # What a test does and asks.

    def add(self, n: int, *, job: int = 1365) -> None:
        with self._lock:
            jobs = self.tasks.setdefault(job, {})
            for _ in range(n):
                jobs[len(jobs)] = Entry(job, len(jobs))

    def fail(self, what: str, n: int = 1, path: str = "") -> None:
        with self._lock:
            self._faults.extend([(what, path)] * n)

    def polls(self) -> list[dict[str, Any]]:
        return [body for _, path, body in self.requests if path.endswith("/tasks/")]

    def states(self) -> Counter[str]:
        with self._lock:
            self._expire()
            return Counter(e.state for jobs in self.tasks.values() for e in jobs.values())

    def wait_for(self, timeout: float = 60.0, **states: int) -> None:
        """Waits until so many tasks have these states."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while any(self.states()[state] < n for state, n in states.items()):
                assert time.monotonic() < deadline, f"{self.states()}, not {states}"
                self._changed.wait(0.05)

    def wait_for_requests(self, n: int, path: str = "", timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while sum(path in asked for _, asked, _ in self.requests) < n:
                assert time.monotonic() < deadline, f"{len(self.requests)} requests"
                self._changed.wait(0.05)

    def results(self, job: int = 1365) -> dict[int, Any]:
        return {n: e.result for n, e in self.tasks[job].items() if e.state == "done"}

    @contextmanager
    def away(self) -> Iterator[None]:
        """Connections are reset meanwhile."""
        self.fail("reset", 1_000_000)
        try:
            yield
        finally:
            with self._lock:
                self._faults.clear()

    # What requests do.

    def fault(self, path: str, body: dict[str, Any]) -> str:
        with self._changed:
            self.requests.append((time.monotonic(), path, body))
            self._changed.notify_all()
            for i, (what, of) in enumerate(self._faults):
                if of in path:
                    del self._faults[i]
                    return what
        return ""

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        info = body.get("client_info") or {}
        parts = [part for part in path.split("/") if part]
        with self._changed:
            self._expire()
            self._changed.notify_all()
            if parts[0] == "workers":
                return (404, {"error": "no such page"}) if self.old else self._worker(parts, info)
            if self._is_fenced(info):
                return 409, {"error": "a newer worker is there", "code": "superseded"}
            if parts == ["jobs"]:
                found = [job for job in self.tasks if self._free(job)]
                return 200, {"results": [{"id": j, "pipeline_slug": "moths"} for j in found[:1]]}
            job = int(parts[1]) if parts[1].isdigit() else None
            what = parts[-1]
            if self.old and (job is None or what not in ("tasks", "result")):
                return 404, {"detail": "Not found."}
            if job is not None and job not in self.tasks:
                return 404, {"detail": "Not found."}
            if what == "tasks":
                return self._reserve(job, body, info)
            if what == "result":
                return self._result(body)
            if what in ("extend", "release", "nak"):
                return self._settle(what, body)
        return 404, {"error": "no such page"}

    def _worker(self, parts: list[str], info: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if parts == ["workers"]:
            self.registered += 1
            self._workers[_identity(info)] = self.registered
            return 201, {"epoch": self.registered, "ack_wait": self.ack_wait, "heartbeat": 1.0}
        if self._is_fenced(info):
            return 409, {"error": "a newer worker is there", "code": "superseded"}
        return 200, {"status": "ok"}

    def _is_fenced(self, info: dict[str, Any]) -> bool:
        newest = self._workers.get(_identity(info), 0)
        return "epoch" in info and bool(info["epoch"] < newest)

    def _free(self, job: int) -> list[Entry]:
        return [e for e in self.tasks[job].values() if e.state == "pending"]

    def _reserve(
        self, job: int | None, body: dict[str, Any], info: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        self.polled[str(info.get("pid"))] += 1
        n = body.get("batch_size")
        if not isinstance(n, int) or n < 1:
            return 400, {"error": "batch_size"}
        jobs = list(self.tasks) if job is None else [job]
        taken = [e for j in jobs for e in self._free(j)][:n]
        for entry in taken:
            entry.attempt += 1
            entry.state = "leased"
            entry.since = time.monotonic()
            entry.expires = time.monotonic() + self.ack_wait
            entry.holder = str(info.get("pid"))
            self.given[entry.holder] += 1
        tasks: list[dict[str, Any]] = [
            {
                "id": f"{e.number}",
                "image_id": f"{e.number}",
                "image_url": f"http://images/{e.number}.jpg",
                "reply_subject": e.lease,
                "config": {"a field": "of later versions"},
            }
            for e in taken
        ]
        if job is None:
            tasks = [{**t, "job_id": e.job} for t, e in zip(tasks, taken, strict=True)]
        return 200, {"tasks": tasks, "something": "new"}

    def _find(self, subject: Any) -> Entry | None:
        parts = subject.split(".") if isinstance(subject, str) else []
        if len(parts) != 9:
            return None
        return self.tasks.get(int(parts[2].removeprefix("job_")), {}).get(int(parts[5]))

    def _result(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        tasks = []
        if any(item["result"] == "refuse me" for item in body["results"]):
            return 400, {"error": "cannot read this"}
        for item in body["results"]:
            entry = self._find(item.get("reply_subject"))
            status = "invalid"
            if entry is not None:
                status = "duplicate" if entry.state == "done" else "queued"
                self.held_for.append(time.monotonic() - entry.since)
                entry.state, entry.result = "done", item["result"]
            tasks.append({"reply_subject": item.get("reply_subject"), "status": status})
        return 200, {"status": "accepted", "tasks": tasks}

    def _settle(self, what: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        leases = []
        for subject in body["reply_subjects"]:
            entry = self._find(subject)
            status = {"extend": "extended", "release": "released", "nak": "settled"}[what]
            if entry is None:
                status = "invalid"
            elif entry.state != "leased" or entry.lease != subject:
                status = "expired"
            elif what == "extend":
                entry.expires = time.monotonic() + self.ack_wait
            elif what == "release":
                entry.state = "pending"
                entry.attempt -= 1
            else:
                self._redeliver(entry)
            leases.append({"reply_subject": subject, "status": status})
        return 200, {"leases": leases, "ack_wait": self.ack_wait}

    def _redeliver(self, entry: Entry) -> None:
        entry.state = "dead" if entry.attempt >= self.max_deliver else "pending"

    def _expire(self) -> None:
        now = time.monotonic()
        for jobs in self.tasks.values():
            for entry in jobs.values():
                if entry.state == "leased" and now > entry.expires:
                    self._redeliver(entry)


def _identity(info: dict[str, Any]) -> tuple[str, str, str]:
    return str(info.get("service")), str(info.get("hostname")), str(info.get("slot"))


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tasks: TaskServer

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Not on stderr."""

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path.removeprefix("/api/v2")
        body = json.loads(content) if content else {}
        if "X-Client-Info" in self.headers:
            body["client_info"] = json.loads(self.headers["X-Client-Info"])
        fault = self.tasks.fault(path, body)
        if fault == "reset":
            self._reset()
        elif fault == "html":
            self._send(200, b"<html><body>Welcome to nginx</body></html>", "text/html")
        elif fault == "nonsense":
            self._send(200, b'{"tasks": 7, "leases": {}, "results": null}')
        elif fault.isdigit():
            self._send(int(fault), b'{"error": "out of order", "code": "away"}')
        elif not path.endswith("/"):
            self._send(301, b"", location=path + "/")
        elif self.headers.get("Authorization") != f"Token {TOKEN}":
            self._send(401, b'{"detail": "Invalid token."}')
        else:
            if path.endswith("/tasks/"):
                self.tasks.gate.wait()
            status, answer = self.tasks.answer(path, body)
            data = json.dumps(answer).encode()
            if fault == "truncated":
                self._send(status, data[: len(data) // 2])
            elif fault == "lost":
                self._reset()
            else:
                self._send(status, data)

    def _reset(self) -> None:
        # With this option a close sends RST.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _send(
        self, status: int, data: bytes, kind: str = "application/json", location: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if location:
            self.send_header("Location", location)
        if status == 503:
            self.send_header("Retry-After", self.tasks.retry_after)
        self.end_headers()
        self.wfile.write(data)
