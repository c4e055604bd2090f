"""Those who ask: workers whose pollers pull tasks, and somebody who looks at pipelines.

A worker is a process of its own, as in the incident: ``python -m replay.load`` with its options as
JSON. It writes what it saw into a file, line by line.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import requests

# A poller of before knows nothing of Retry-After.
PAUSE = 1.0
# Seconds that a worker is busy with a task.
WORK = 0.25
EMPTY_PAUSE = 0.25


class Journal:
    """A file of lines of JSON, written by many threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()

    def write(self, **fields: Any) -> None:
        with self._lock:
            self._file.write(json.dumps(fields) + "\n")


class Plan:
    """What is to be polled, as the story says it from moment to moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0.0
        self._plan: dict[str, Any] = {}

    def now(self) -> dict[str, Any]:
        """The plan, at most a moment old."""
        if time.monotonic() - self._read > 0.05:
            self._read = time.monotonic()
            self._plan = json.loads(self._path.read_text())
        return self._plan


class Worker:
    """Pollers that belong together."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.plan = Plan(Path(options["plan"]))
        self.journal = Journal(Path(options["journal"]))
        self.headers = {"Authorization": f"Token {options['token']}"}
        self.info = {
            "service": "adc (gpu-1)",
            "hostname": "gpu-1",
            "slot": str(options["slot"]),
            "version": options["name"],
        }
        self.fenced = threading.Event()

    def register(self) -> None:
        """Says that it is there, where one can; then loads its models, as it were."""
        if self.options["registers"]:
            body = {"client_info": self.info}
            url = f"{self.options['url']}/workers/"
            answer = requests.post(url, json=body, headers=self.headers, timeout=60)
            while answer.status_code == 503:
                time.sleep(float(answer.headers["Retry-After"]))
                answer = requests.post(url, json=body, headers=self.headers, timeout=60)
            answer.raise_for_status()
            self.info["epoch"] = answer.json()["epoch"]
        time.sleep(self.options["boot"])

    def run(self) -> None:
        self.register()
        threads = [threading.Thread(target=self._poll) for _ in range(self.options["pollers"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _poll(self) -> None:
        chance = random.Random()
        time.sleep(chance.random() * 0.5)
        session = requests.Session()
        # A connection that is kept could be closed by the server just as the next request is sent.
        session.headers["Connection"] = "close"
        session.headers.update(self.headers)
        while not self.fenced.is_set():
            plan = self.plan.now()
            if plan["stop"]:
                return
            pause = self._ask(session, chance.choice(plan["jobs"]), plan["path"])
            time.sleep(pause * (0.9 + 0.2 * chance.random()))

    def _ask(self, session: requests.Session, job: int, path: str) -> float:
        """Asks once, and tells for how long to be busy, or to wait, now."""
        url = f"{self.options['url']}/{path.format(job=job)}"
        body = {"batch_size": self.options["batch"], "client_info": self.info}
        began = time.time()
        status, ids, pause = "", [], PAUSE
        try:
            answer = session.post(url, json=body, timeout=self.options["timeout"])
            status = str(answer.status_code)
            if answer.status_code == 200:
                ids = [task["id"] for task in answer.json()["tasks"]]
                pause = WORK * len(ids) or EMPTY_PAUSE
            elif answer.status_code == 409:
                self.fenced.set()
            else:
                pause = max(pause, float(answer.headers.get("Retry-After", "0")))
        except requests.RequestException as error:
            status = type(error).__name__
        self.journal.write(
            at=began,
            took=time.time() - began,
            status=status,
            ids=ids,
            job=job,
            worker=self.options["name"],
        )
        return pause


class Monitor:
    """Looks at the pipelines so and so often, whatever became of the looks before."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.plan = Plan(Path(options["plan"]))
        self.journal = Journal(Path(options["journal"]))

    def run(self) -> None:
        due = time.monotonic()
        sessions: list[requests.Session] = []
        threads: list[threading.Thread] = []
        while not self.plan.now()["stop"]:
            due += 1 / self.options["rate"]
            time.sleep(max(due - time.monotonic(), 0))
            session = sessions.pop() if sessions else requests.Session()
            thread = threading.Thread(target=self._look, args=(session, sessions))
            thread.start()
            threads = [t for t in threads if t.is_alive()] + [thread]
        for thread in threads:
            thread.join()

    def _look(self, session: requests.Session, sessions: list[requests.Session]) -> None:
        began = time.time()
        headers = {
            "Authorization": f"Token {self.options['token']}",
            "Connection": "close",
        }
        url = f"{self.options['url']}/ml/pipelines/"
        try:
            status = str(session.get(url, headers=headers, timeout=30).status_code)
        except requests.RequestException as error:
            status = type(error).__name__
        self.journal.write(at=began, took=time.time() - began, status=status)
        sessions.append(session)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    (Monitor(told) if told["role"] == "monitor" else Worker(told)).run()
    sys.stdout.flush()
    os._exit(0)
