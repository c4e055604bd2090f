"""A worker that pulls tasks over HTTP and posts results: one process, one poller.

    python puller.py http://127.0.0.1:8000/api/v2 TOKEN --pipelines moths --until-empty

It registers itself, so that an older worker of the same service, host and slot is told to stop. A
worker with GPUs, loaders and restarts is in natslease.worker.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from typing import Any

import requests

SUPERSEDED = 3


class Superseded(Exception):
    """A newer worker has taken this one's place."""


class Api:
    """The application, as a worker sees it."""

    def __init__(self, base: str, token: str, slot: str) -> None:
        self._base = base
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Token {token}"
        host = platform.node()
        self.info: dict[str, Any] = {"service": f"adc ({host})", "hostname": host, "slot": slot}

    def register(self) -> None:
        """Gets an epoch, where the application gives any: from then on it is the only one."""
        try:
            self.info["epoch"] = self.post("/workers/")["epoch"]
        except requests.HTTPError as error:
            if error.response.status_code != 404:
                raise

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """Posts, and waits through outages for as long as the application says."""
        while True:
            pause = 1.0
            try:
                answer = self._session.post(
                    f"{self._base}{path}", json={**body, "client_info": self.info}, timeout=(5, 30)
                )
            except requests.RequestException as error:
                print(f"{path}: {error}", file=sys.stderr)
            else:
                if answer.status_code == 409:
                    raise Superseded(answer.json()["error"])
                if answer.status_code != 503:
                    answer.raise_for_status()
                    fields: dict[str, Any] = answer.json()
                    return fields
                pause = float(answer.headers.get("Retry-After", "1"))
                print(f"{path}: unavailable, again in {pause:g} s", file=sys.stderr)
            time.sleep(pause)


def look_at(task: dict[str, Any]) -> dict[str, Any]:
    """The work: as it were, a model sees a moth."""
    return {"image_id": task["image_id"], "detections": [{"label": "moth", "score": 0.9}]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("token")
    parser.add_argument("--pipelines", nargs="*", help="left out: all that the token may see")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--slot", default="0")
    parser.add_argument("--until-empty", action="store_true", help="end when there is nothing")
    options = parser.parse_args()
    api = Api(options.base, options.token, options.slot)
    try:
        api.register()
        while True:
            named = {"pipelines": options.pipelines} if options.pipelines else {}
            tasks = api.post("/jobs/tasks/", batch_size=options.batch, wait=2.0, **named)["tasks"]
            if not tasks:
                if options.until_empty:
                    return 0
                time.sleep(1.0)
                continue
            results = [
                {"reply_subject": task["reply_subject"], "result": look_at(task)} for task in tasks
            ]
            told = api.post("/jobs/result/", results=results)
            print(f"{told['results_queued']} of {len(results)} results taken over", flush=True)
    except Superseded as error:
        print(f"superseded: {error}", file=sys.stderr)
        return SUPERSEDED


if __name__ == "__main__":
    sys.exit(main())
