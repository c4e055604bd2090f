"""What happened, as the checker of linearizability reads it: see linearizable/model.go."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from account import FORGOTTEN_WITHIN, Account, journals

CHECKER = Path(__file__).resolve().parents[2] / "build" / "bin" / "linearizable"
# What has no end has happened by then, or never: a call's timeout, and a freeze.
UNHEARD = 10.0
_KINDS = {"ack": "ack", "nak": "nak", "release": "nak"}


def write(path: Path, folder: Path, account: Account, ack_wait: float, left: Iterable[str]) -> None:
    """Writes the history of a run, at whose end the queue had no tasks but those that are left."""
    events = [event for _, notes in journals(folder) for event in _events(notes)]
    end = max((event["end"] for event in events), default=0) + 1
    drained = account.published - set(left)
    events += [_event(id_, "drained", end, end + 1) for id_ in sorted(drained)]
    history = {
        "ack_wait": _ns(ack_wait),
        "forgotten": _ns(FORGOTTEN_WITHIN),
        "unheard": _ns(UNHEARD),
        "outages": [{"begin": _ns(begin), "end": _ns(end)} for begin, end in account.faults],
        "events": events,
    }
    path.write_text(json.dumps(history))


def check(path: Path) -> tuple[bool, str]:
    """Whether there is an order of events for every task, and what the checker says."""
    done = subprocess.run([CHECKER, path], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{CHECKER} ended with {done.returncode}")
    return done.returncode == 0, done.stdout.strip()


def _events(notes: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One process's events. What it had begun when it was killed has no end."""
    publishing: dict[str, int] = {}
    settling: dict[str, int] = {}
    reserving, kind = 0, ""
    for note in notes:
        at = _ns(note["at"])
        match note["event"]:
            case "publishing":
                publishing = dict.fromkeys(note["ids"], at)
            case "accepted":
                yield from (_event(id_, "publish", publishing.pop(id_), at) for id_ in note["ids"])
            case "reserving":
                reserving = at
            case "reserved":
                for id_, *_ in note["leases"]:
                    yield _event(id_, "reserve", reserving, at)
            case "settling":
                settling, kind = dict.fromkeys(note["ids"], at), _KINDS[note["kind"]]
            case _:
                for id_, _, status, _ in note["results"]:
                    begin = settling.pop(id_)
                    if status in ("settled", "unknown"):  # the others have done nothing
                        yield _event(id_, kind, begin, at if status == "settled" else 0)
    yield from (_event(id_, "publish", begin, 0) for id_, begin in publishing.items())
    yield from (_event(id_, kind, begin, 0) for id_, begin in settling.items())


def _event(task: str, kind: str, begin: int, end: int) -> dict[str, Any]:
    return {"task": task, "kind": kind, "begin": begin, "end": end}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
