"""A worker that takes a task from one web process and posts its result to another, for each two of
them: ``rollingworker.py`` with its options as JSON. What became of each is a line of JSON.

Both workers send back what came with a task. One of "before" knows a job's own URLs, without a
slash; one of "after" registers, and asks for tasks of any job.
"""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import requests

TIMEOUT = 30


class Worker:
    """One of them."""

    def __init__(self, kind: str, token: str, job: int) -> None:
        self._is_new = kind == "after"
        self._path = "/jobs" if self._is_new else f"/jobs/{job}"
        self._session = requests.Session()
        self._session.headers.update({"Authorization": f"Token {token}", "Connection": "close"})
        self._said: dict[str, Any] = {}

    def register(self, url: str) -> None:
        if self._is_new:
            info = {"service": "adc (gpu-1)", "hostname": "gpu-1", "slot": "0"}
            answer = self._read("POST", f"{url}/workers/", json={"client_info": info})
            self._said = {"client_info": {**info, "epoch": answer["epoch"]}}

    def take(self, url: str) -> dict[str, Any]:
        if self._is_new:
            body = {**self._said, "batch_size": 1, "wait": 5}
            answer = self._read("POST", f"{url}{self._path}/tasks/", json=body)
        else:
            answer = self._read("GET", f"{url}{self._path}/tasks?batch=1")
        task: dict[str, Any]
        (task,) = answer["tasks"]
        return task

    def give(self, url: str, task: dict[str, Any]) -> str:
        result = {"image_id": task["image_id"], "detections": []}
        body = {
            **self._said,
            "results": [{"reply_subject": task["reply_subject"], "result": result}],
        }
        slash = "/" if self._is_new else ""
        (answer,) = self._read("POST", f"{url}{self._path}/result{slash}", json=body)["tasks"]
        return str(answer["status"])

    def _read(self, method: str, url: str, **options: Any) -> Any:
        answer = self._session.request(
            method, url, timeout=TIMEOUT, allow_redirects=False, **options
        )
        assert answer.status_code in (200, 201), (url, answer.status_code, answer.text[:500])
        return answer.json()


def main() -> None:
    told = json.loads(sys.argv[1])
    webs: dict[str, str] = told["webs"]
    worker = Worker(told["kind"], told["token"], told["job"])
    worker.register(next(iter(webs.values())))
    for emits, accepts in itertools.product(webs, webs):
        task = worker.take(webs[emits])
        status = worker.give(webs[accepts], task)
        became = {
            "emits": emits,
            "accepts": accepts,
            "status": status,
            "reply_subject": task["reply_subject"],
            "image_id": task["image_id"],
        }
        print(json.dumps(became))


if __name__ == "__main__":
    main()
