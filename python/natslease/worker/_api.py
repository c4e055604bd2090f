"""Requests to a server that gives out tasks over HTTP, and what its answers mean."""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from .._errors import (
    AuthenticationFailed,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    Error,
    NotLoaded,
    PermissionDenied,
    ServerError,
    Superseded,
    Unavailable,
)

try:
    import requests
except ImportError as error:
    raise NotLoaded("HTTPSource needs requests: pip install natslease[worker]") from error

# A server that asks for more than this is not believed.
MOST_RETRY_AFTER = 600.0
# An answer is held in memory.
MOST_BYTES = 256 << 20

_PASSING = (408, 425, 429)


class NotThere(Error):
    """The server has no such URL (404, 405): it may be older than what is asked of it."""

    code = "not_found"


class Api:
    """Asks for JSON and gets JSON, or raises an error of natslease.

    Safe for use by several threads: each has a session of its own, because one is not.
    """

    def __init__(
        self, base: str, token: str | None, timeout: tuple[float, float], headers: Mapping[str, str]
    ) -> None:
        self._base = base.rstrip("/") + "/"
        self._token = token
        self._timeout = timeout
        self._headers = dict(headers)
        self._local = threading.local()
        #: When the server last gave an answer that made sense, on the monotonic clock.
        self.contact = 0.0
        #: How many requests were made.
        self.requests = 0

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_local"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()

    def _session(self) -> requests.Session:
        # A forked child must not speak on its parent's connection.
        if getattr(self._local, "pid", None) != os.getpid():
            session = requests.Session()
            session.headers.update(self._headers)
            session.headers["Accept"] = "application/json"
            if self._token:
                session.headers["Authorization"] = f"Token {self._token}"
            self._local.session, self._local.pid = session, os.getpid()
        found: requests.Session = self._local.session
        return found

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 0.0,
    ) -> dict[str, Any]:
        """Makes one request, once.

        Args:
            method: GET or POST.
            path: below the base, with its trailing slash.
            body: sent as JSON; bytes are JSON already.
            params: the query.
            headers: more headers.
            wait: seconds that the server may take on purpose.

        Raises:
            Error: ``Unavailable`` where it may work later, with what ``Retry-After`` said.
        """
        self.requests += 1
        connect, read = self._timeout
        data = body if isinstance(body, bytes) or body is None else dump(body)
        sent: dict[str, str] = dict(headers or {})
        if data is not None:
            sent["Content-Type"] = "application/json"
        what = f"{method} {path}"
        deadline = time.monotonic() + connect + read + wait
        try:
            response = self._session().request(
                method,
                self._base + path,
                data=data,
                params=params,
                headers=sent,
                timeout=(connect, read + wait),
                allow_redirects=False,
                stream=True,
            )
            with contextlib.closing(response):
                content = _read(response, deadline, what)
        except (requests.ConnectTimeout, requests.exceptions.ProxyError) as error:
            raise ConnectFailed(f"{what}: {error}", operation=path) from None
        except requests.Timeout as error:
            raise DeadlineExceeded(f"{what}: {error}", outcome="unknown", operation=path) from None
        except requests.ConnectionError as error:
            if "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error):
                raise ConnectFailed(f"{what}: {error}", operation=path) from None
            raise ConnectionLost(f"{what}: {error}", outcome="unknown", operation=path) from None
        except requests.RequestException as error:
            raise Unavailable(f"{what}: {error}", outcome="unknown", operation=path) from None
        return self._read_answer(response, content, what)

    def _read_answer(
        self, response: requests.Response, content: bytes, what: str
    ) -> dict[str, Any]:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if 200 <= response.status_code < 300:
            if isinstance(answer, dict):
                self.contact = time.monotonic()
                return answer
            kind = response.headers.get("Content-Type", "no content type")
            raise Unavailable(
                f"{what}: the answer is not a JSON object ({kind}): {_start(content)}",
                code="bad_answer",
                outcome="unknown",
            )
        raise self._refusal(response, answer, content, what)

    def _refusal(
        self, response: requests.Response, answer: Any, content: bytes, what: str
    ) -> Error:
        fields = answer if isinstance(answer, dict) else {}
        status = response.status_code
        code = fields["code"] if isinstance(fields.get("code"), str) else f"http_{status}"
        told = fields.get("error") or fields.get("detail") or _start(content)
        text = f"{what}: {status} {response.reason}: {told}"
        if status == 401:
            return AuthenticationFailed(text, outcome="rejected")
        if status == 403:
            return PermissionDenied(text, outcome="rejected")
        if status in (404, 405):
            return NotThere(text, outcome="rejected")
        if status == 409 and code in ("superseded", "http_409"):
            return Superseded(text, outcome="rejected")
        if status >= 500 or status in _PASSING or status == 409:
            outcome = "unknown" if status in (500, 502, 504) else "not_sent"
            return Unavailable(
                text,
                code=code,
                outcome=outcome,  # type: ignore[arg-type]
                retry_after=retry_after(response.headers.get("Retry-After"), fields),
            )
        if status < 400:
            text += f" (to {response.headers.get('Location', 'nowhere')}: use that base URL)"
        return ServerError(text, code=code, outcome="rejected")


def _read(response: requests.Response, deadline: float, what: str) -> bytes:
    """The whole answer: requests' own timeout begins anew with every byte."""
    content = bytearray()
    for chunk in response.iter_content(1 << 16):
        content += chunk
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"{what}: the answer takes too long", outcome="unknown")
        if len(content) > MOST_BYTES:
            raise Unavailable(f"{what}: the answer is too large", outcome="unknown")
    return bytes(content)


def _start(content: bytes) -> str:
    text = " ".join(content[:400].decode("utf-8", "replace").split())
    return repr(text[:120]) if text else "an empty body"


def dump(value: Any) -> bytes:
    """A value as JSON.

    Raises:
        TypeError, ValueError: it has something that JSON has not, such as NaN.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def retry_after(header: str | None, fields: Mapping[str, Any]) -> float:
    """Seconds that a server asks for: exact in its JSON, rounded or as a date in the header."""
    exact = fields.get("retry_after")
    seconds = 0.0
    if isinstance(exact, (int, float)) and not isinstance(exact, bool):
        seconds = float(exact)
    elif header:
        try:
            seconds = float(header)
        except ValueError:
            with contextlib.suppress(ValueError, TypeError):
                seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
    return min(seconds, MOST_RETRY_AFTER) if seconds > 0 else 0.0  # NaN is not
