"""Tasks: what travels through the queue and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

import natslease


class Task:
    """A task as it was queued: what is not known here is kept.

    Attributes:
        reply_subject: by what it is acknowledged; None before it was reserved.
    """

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update({"id": None, "image_id": None, "image_url": None}, **fields)
        self.__dict__.setdefault("reply_subject", None)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this task has no {name!r}")

    def dict(self) -> dict[str, Any]:
        """Its fields, as a pydantic object tells them."""
        return dict(self.__dict__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Task({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


def fields_of(data: Any) -> dict[str, Any]:
    """The fields of a task: a mapping, a pydantic object of either major version, or a Task."""
    if isinstance(data, Mapping):
        return dict(data)
    for name in ("model_dump", "dict"):
        if callable(method := getattr(data, name, None)):
            fields: dict[str, Any] = method()
            return fields
    raise TypeError(f"a task is {type(data).__name__}: give a mapping, or an object with dict()")


def message_of(data: Any, run: str) -> natslease.Message:
    """The message of a task. Within a run an image is queued once; another run queues it anew."""
    fields = fields_of(data)
    fields.pop("reply_subject", None)
    image = fields.get("image_id") or fields.get("id")
    if not image:
        raise ValueError("a task has neither image_id nor id")
    return natslease.Message(json.dumps(fields, default=str).encode(), id=f"{run}:{image}")


def new_run() -> str:
    """A name for a run that has none."""
    return token_hex(8)


def read(lease: natslease.Lease | natslease.AsyncLease) -> dict[str, Any] | None:
    """The fields of a leased task; None when it is not a JSON object."""
    try:
        fields = lease.json()
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None
