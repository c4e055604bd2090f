"""A WSGI application: each request is a task."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from preloaded import queue
from work import round_trip


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    done = round_trip(queue)
    time.sleep(0.02)  # so that other workers get the next requests
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(done).encode()]
