"""A queue that is in use where this module is imported: in the parent, before it forks."""

from __future__ import annotations

import json
import sys

import natslease
from work import round_trip

client = natslease.Client.from_env(timeout=20)
queue = client.queue("tasks")
queue.ensure()


def report(when: str) -> None:
    """Does a task, and writes what was done for the test."""
    print(f"{when}: {json.dumps(round_trip(queue))}", file=sys.stderr, flush=True)


report("imported")
