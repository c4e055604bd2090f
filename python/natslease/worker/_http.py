"""Tasks over HTTP, from a server like Antenna."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._errors import ConfigError, Error, Unavailable
from ..fleet import default_host
from ._answers import by_job, failure_result, path_of, read_statuses, read_task
from ._api import Api, NotThere, dump
from ._extender import Extender
from ._source import listed
from ._task import Batch, Done, Failed, Outcome, Status, Task

log = logging.getLogger("natslease.worker")

# What a lease lasts where the server does not say so.
_ACK_WAIT = 300.0
_HEARTBEAT = 20.0
# How the statuses of a posted result end.
_STATUSES: dict[str, Status] = {
    "queued": "settled",
    "settled": "settled",
    "duplicate": "settled",
    "nak": "settled",
    "gone": "gone",
    "expired": "gone",
    "invalid": "rejected",
    "rejected": "rejected",
    "unknown": "unknown",
}


class HTTPSource:
    """Tasks over HTTP, from a server like Antenna.

    With pipelines, or with nothing given, one request asks for tasks of all jobs that the token may
    work on. Servers that have no such URL are asked for a job, then for its tasks; servers that
    know nothing of workers, extensions or releases are served without.
    """

    needs_result = True

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        pipelines: Sequence[str] = (),
        projects: Sequence[int] = (),
        job: int | str | None = None,
        service: str | None = None,
        hostname: str | None = None,
        slot: str | int = "0",
        version: str = "",
        client_info: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        failure: Callable[[Task, str], Any] | None = None,
        ack_wait: float | None = None,
        wait: float | None = None,
        timeout: tuple[float, float] = (5.0, 30.0),
    ) -> None:
        """No request is made.

        Args:
            base_url: such as ``"https://antenna.example.org/api/v2"``.
            token: sent as ``Authorization: Token ...``.
            pipelines: slugs of the pipelines to work for; none: all.
            projects: ids of the projects to work for; none: all that the token may see.
            job: only this job.
            service: the processing service's name; left out, ``"worker (<hostname>)"``.
            hostname: where the worker runs; left out, the host name with the PID namespace's id, so
                that containers of the same name are told apart.
            slot: which of several workers on one host, as a rule the GPU's number. A newer worker
                fences an older one with the same service, hostname and slot.
            version: of the worker; shown to operators.
            client_info: more that a server may like to know of the worker.
            headers: sent with every request.
            failure: makes the result that is posted for a task that has failed for good, from the
                task and the reason; left out, ``{"error": reason}``, with the ``image_id`` of the
                task.
            ack_wait: seconds that a lease lasts, for servers that do not tell; 300 when left out.
            wait: seconds that the server may wait for the first task; left out, as it likes.
            timeout: seconds to connect, and to wait for an answer.

        Raises:
            ConfigError: an option is wrong.
        """
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"base_url: is {base_url!r}: use http:// or https://")
        if isinstance(pipelines, str):
            raise TypeError("pipelines: is one str: give a list")
        host = hostname or default_host()
        self._info: dict[str, Any] = {
            **(client_info or {}),
            "service": service or f"worker ({host})",
            "hostname": host,
            "slot": str(slot),
            "pid": os.getpid(),
        }
        if version:
            self._info["version"] = version
        self.name = f"{self._info['service']}/{slot}"
        self.ack_wait: float | None = ack_wait or _ACK_WAIT
        self._api = Api(base_url, token, timeout, headers or {})
        self._job = None if job is None else str(job)
        self._asked: dict[str, list[Any]] = {
            "pipelines": list(pipelines),
            "projects": list(projects),
        }
        self._wait = wait
        self._failure = failure or failure_result
        self._extender = Extender(self._post_extensions, lambda: self.ack_wait or _ACK_WAIT)
        self._heartbeat = _HEARTBEAT
        self._missing: set[str] = set()  # URLs that this server does not have
        self._found: list[str] = []  # jobs, where the server is asked job by job

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_extender": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._extender = Extender(self._post_extensions, lambda: self.ack_wait or _ACK_WAIT)

    def __repr__(self) -> str:
        return f"<HTTPSource {self._api._base} as {self.name}>"

    @property
    def requests(self) -> int:
        """How many requests were made so far."""
        return self._api.requests

    def open(self) -> None:
        """Registers the worker: from now on older ones in its place are fenced."""
        self._info["pid"] = os.getpid()
        self._info.pop("epoch", None)
        answer = self._optional("workers/", {})
        if answer is None:
            return
        if isinstance(answer.get("epoch"), int):
            self._info["epoch"] = answer["epoch"]
        self._note_ack_wait(answer)
        heartbeat = answer.get("heartbeat")
        if isinstance(heartbeat, (int, float)) and heartbeat > 0:
            self._heartbeat = float(heartbeat)
        log.info("%s: registered, epoch %s", self.name, answer.get("epoch"))

    def close(self) -> None:
        """Says goodbye, where the worker is registered."""
        if "epoch" in self._info:
            try:
                self._optional("workers/leave/", {})
            except Error as error:  # the server sees that no sign of life comes any more
                log.info("%s: could not say goodbye: %s", self.name, error)
            del self._info["epoch"]

    # Reserving.

    def reserve(self, n: int, wait: float = 0.0) -> Batch:
        """Takes up to n tasks. How long the server waits for the first is the source's ``wait``."""
        if self._job is not None:
            return self._reserve(f"jobs/{self._job}/tasks/", n, {}, self._job)
        asked = {name: value for name, value in self._asked.items() if value}
        if "jobs/tasks/" not in self._missing:
            try:
                return self._reserve("jobs/tasks/", n, asked, "")
            except NotThere as error:
                self._lacks("jobs/tasks/", error)
        return self._reserve_by_job(n)

    def _reserve(self, path: str, n: int, asked: Mapping[str, Any], job: str) -> Batch:
        body = {"batch_size": n, **asked, "client_info": self._info}
        if self._wait is not None:
            body["wait"] = self._wait
        answer = self._api.call("POST", path, body, wait=self._wait or 0.0)
        tasks = answer.get("tasks")
        if not isinstance(tasks, list):
            raise Unavailable(f"POST {path}: the answer has no list of tasks", code="bad_answer")
        found = Batch()
        for fields in tasks:
            task = read_task(fields, job)
            if task is None:
                log.error("%s: not a task, it is left to its lease: %.200r", self.name, fields)
            else:
                found.append(task)
        return found

    def _reserve_by_job(self, n: int) -> Batch:
        """Asks for a job that has work, then for its tasks, until it has none; then for another."""
        empty: set[str] = set()
        while True:
            if not self._found:
                self._found = [job for job in self._find_jobs() if job not in empty]
            if not self._found:
                return Batch()
            job = self._found[0]
            try:
                found = self._reserve(f"jobs/{job}/tasks/", n, {}, job)
            except NotThere:
                log.info("%s: job %s is no longer there", self.name, job)
                found = Batch()
            if found:
                return found
            empty.add(self._found.pop(0))

    def _find_jobs(self) -> list[str]:
        params: dict[str, Any] = {
            "ids_only": 1,
            "incomplete_only": 1,
            "dispatch_mode": "async_api",
        }
        if self._asked["pipelines"]:
            params["pipeline__slug__in"] = ",".join(self._asked["pipelines"])
        headers = {"X-Client-Info": json.dumps(self._info)}
        answer = self._api.call("GET", "jobs/", params=params, headers=headers)
        jobs = answer.get("results")
        if not isinstance(jobs, list):
            raise Unavailable("GET jobs/: the answer has no results", code="bad_answer")
        return [str(job["id"]) for job in jobs if isinstance(job, dict) and "id" in job]

    # Settling.

    def settle(self, outcomes: Sequence[Outcome]) -> list[Status]:
        """Posts results and failures. A task whose result cannot be sent as JSON has failed."""
        statuses: dict[str, Status] = {}
        posted: list[tuple[Task, bytes]] = []
        failed: dict[str, list[Task]] = {}
        for outcome in outcomes:
            task = outcome.task
            if isinstance(outcome, Failed) and outcome.retry:
                failed.setdefault(outcome.reason, []).append(task)
                continue
            try:
                posted.append((task, self._item(outcome)))
            except (TypeError, ValueError, RecursionError) as error:
                log.error("%s: the result of %r is no JSON: %s", self.name, task, error)
                failed.setdefault(f"its result is no JSON: {error}", []).append(task)
        for job, items in by_job(posted, self._together):
            statuses.update(self._post_results(job, items))
        for reason, tasks in failed.items():
            statuses.update(self._post_failures(reason, tasks))
        return [statuses.get(outcome.task.key, "unknown") for outcome in outcomes]

    def _item(self, outcome: Outcome) -> bytes:
        task = outcome.task
        if isinstance(outcome, Done):
            result = outcome.result
        else:
            result = self._failure(task, outcome.reason)
        item = {"reply_subject": task.key, "result": result}
        if task.job.isdigit():
            item["job_id"] = int(task.job)
        return dump(item)

    def _post_results(self, job: str, items: list[tuple[Task, bytes]]) -> dict[str, Status]:
        tasks = [task for task, _ in items]
        body = b'{"results":[%b],"client_info":%b}' % (
            b",".join(item for _, item in items),
            dump(self._info),
        )
        try:
            answer = self._api.call("POST", path_of(job, "result/"), body)
        except NotThere:
            log.warning("%s: job %s is gone, with results of %s", self.name, job, listed(tasks))
            return {task.key: "gone" for task in tasks}
        except Error as error:
            if error.outcome != "rejected" or error.code not in _ABOUT_THE_BODY:
                raise
            if len(items) == 1:
                log.error("%s: the result of %r is refused: %s", self.name, tasks[0], error)
                return {tasks[0].key: "rejected"}
            # One bad item must not cost the others.
            half = len(items) // 2
            return {
                **self._post_results(job, items[:half]),
                **self._post_results(job, items[half:]),
            }
        if answer.get("status") != "accepted" and not isinstance(answer.get("tasks"), list):
            raise Unavailable(
                "POST result/: the answer does not say that they were accepted", code="bad_answer"
            )
        told = read_statuses(answer.get("tasks"))
        return {task.key: _STATUSES.get(told.get(task.key, "queued"), "unknown") for task in tasks}

    def _post_failures(self, reason: str, tasks: list[Task]) -> dict[str, Status]:
        """Offers them again; where the server cannot, their leases are left to run out."""
        self.unkeep(tasks)
        statuses: dict[str, Status] = {}
        for job, items in by_job([(task, b"") for task in tasks], self._together):
            keys = [task.key for task, _ in items]
            answer = self._optional(
                path_of(job, "nak/"), {"reply_subjects": keys, "reason": reason[:1000]}
            )
            told = read_statuses((answer or {}).get("leases"))
            for key in keys:
                statuses[key] = _STATUSES.get(told.get(key, "settled"), "settled")
        return statuses

    def release(self, tasks: Sequence[Task]) -> None:
        self.unkeep(tasks)
        for job, items in by_job([(task, b"") for task in tasks], self._together):
            keys = [task.key for task, _ in items]
            self._optional(path_of(job, "release/"), {"reply_subjects": keys})

    # Leases and signs of life.

    def keep(self, tasks: Sequence[Task], max_hold: float) -> None:
        self._extender.add(tasks, max_hold)

    def unkeep(self, tasks: Sequence[Task]) -> None:
        self._extender.remove(tasks)

    def beat(self) -> float:
        """Extends what is due, and gives a sign of life if no other request has lately."""
        due = self._extender.extend()
        if "epoch" not in self._info:
            return due
        silent = time.monotonic() - self._api.contact
        if silent >= self._heartbeat:
            self._optional("workers/heartbeat/", {})
            silent = 0.0
        return min(due, self._heartbeat - silent)

    def _post_extensions(self, tasks: Sequence[Task]) -> dict[str, str]:
        statuses: dict[str, str] = {}
        for job, items in by_job([(task, b"") for task in tasks], self._together):
            keys = [task.key for task, _ in items]
            answer = self._optional(path_of(job, "extend/"), {"reply_subjects": keys})
            if answer is None:
                statuses.update(dict.fromkeys(keys, "impossible"))
                continue
            self._note_ack_wait(answer)
            told = read_statuses(answer.get("leases"))
            statuses.update({key: told.get(key, "unknown") for key in keys})
        return statuses

    def _note_ack_wait(self, answer: Mapping[str, Any]) -> None:
        told = answer.get("ack_wait")
        if isinstance(told, (int, float)) and told > 0:
            self.ack_wait = float(told)

    # What servers have and have not.

    @property
    def _together(self) -> bool:
        return self._job is None and "jobs/tasks/" not in self._missing

    def _optional(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Asks for what older servers do not have: None there."""
        kind = path.rstrip("/").rpartition("/")[2]
        if kind in self._missing:
            return None
        try:
            return self._api.call("POST", path, {**body, "client_info": self._info})
        except NotThere as error:
            self._lacks(kind, error)
            return None

    def _lacks(self, what: str, error: Error) -> None:
        log.warning("%s: the server does not know %s, going on without: %s", self.name, what, error)
        self._missing.add(what)


# Refusals that may be for one item's sake.
_ABOUT_THE_BODY = ("http_400", "http_413", "http_422")
