"""Who asks: what a worker says of itself."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

HEADER = "X-Client-Info"
_MAX_INFO = 4096  # characters of JSON
_MAX_TEXT = 200


@dataclass(frozen=True)
class WorkerInfo:
    """What is known of who has sent a request.

    Attributes:
        service: the processing service's name.
        hostname: of the worker's machine; a pod's name where it gives no host.
        slot: which of the workers on that machine; "0" when it does not say.
        epoch: from its registration; 0 when it has none.
        version: of its program, as it says.
        address: where the request came from.
        info: all that it says, as it came.
        user: the account that its token belongs to.
        token: the first characters of the token's hash: enough to tell tokens apart.
    """

    service: str = ""
    hostname: str = ""
    slot: str = "0"
    epoch: int = 0
    version: str = ""
    address: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    user: str = ""
    token: str = ""

    @property
    def is_registered(self) -> bool:
        """Whether it can be fenced."""
        return bool(self.service and self.hostname and self.epoch)

    def __str__(self) -> str:
        named = f"{self.service or 'unnamed'}@{self.hostname or '?'}/{self.slot}"
        return f"worker {named} (user {self.user or '?'}, token {self.token or '?'})"


def worker_of(request: Request) -> WorkerInfo:
    """Reads ``client_info`` of a request's body, or else of its header.

    Raises:
        ValidationError: it is not an object, or too large.
    """
    body = request.data if isinstance(request.data, dict) else {}
    info = body.get("client_info")
    if info is None and (text := request.headers.get(HEADER)):
        try:
            info = json.loads(text[: _MAX_INFO + 1])
        except ValueError:
            raise ValidationError({"client_info": f"{HEADER} is not JSON"}) from None
    info = {} if info is None else info
    if not isinstance(info, dict):
        raise ValidationError({"client_info": "is not an object"})
    text = json.dumps(info)
    if len(text) > _MAX_INFO:
        raise ValidationError({"client_info": f"is longer than {_MAX_INFO} characters"})
    if "\\u0000" in text:
        raise ValidationError({"client_info": "has NUL characters"})  # PostgreSQL keeps none
    user = getattr(request, "user", None)
    return WorkerInfo(
        service=_text(info, "service"),
        hostname=_text(info, "hostname") or _text(info, "pod"),
        slot=_text(info, "slot") or "0",
        epoch=_epoch(info.get("epoch")),
        version=_text(info, "version"),
        address=request.META.get("REMOTE_ADDR") or "",
        info=info,
        user=user.get_username() if user is not None and user.is_authenticated else "",
        token=fingerprint(request),
    )


def _text(info: dict[str, Any], name: str) -> str:
    value = info.get(name)
    if value is None:
        return ""
    # It goes into logs: no line breaks.
    return "".join(c for c in str(value) if c.isprintable())[:_MAX_TEXT]


def _epoch(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValidationError({"client_info": "epoch is not a whole number"})
    return value


def fingerprint(request: Request) -> str:
    """The first characters of the hash of the request's token; "" when it has none."""
    token = getattr(request.auth, "key", None) or getattr(request.auth, "token", None)
    return hashlib.sha256(str(token).encode()).hexdigest()[:10] if token else ""
