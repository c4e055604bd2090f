"""Viewsets that use queues."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar

from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

import natslease
from natslease.contrib.django import ClientGone, error_response, reserve, waiting
from natslease.contrib.django._settings import http
from natslease.contrib.django._views import GONE_STATUS, add_timing, make_non_atomic

if TYPE_CHECKING:
    from natslease import Lease, LeaseBatch, Queue

    _Base = APIView
else:
    _Base = object

F = TypeVar("F")

_MARK = "uses_queue"


def queue_action(method: F) -> F:
    """Marks a viewset's method, beside ``@action`` if it is one: its URLs are exempt from
    ``ATOMIC_REQUESTS``, so that it can wait for NATS. The viewset needs ``QueueViewMixin``."""
    setattr(method, _MARK, True)
    return method


class QueueUnavailable(APIException):
    """An error of a queue, as HTTP clients see it."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        super().__init__()
        self.status_code = status
        # As it is: APIException would make a text of every value.
        self.detail = body
        self.wait = ceil(float(headers["Retry-After"])) if "Retry-After" in headers else None


class QueueViewMixin(_Base):
    """In front of a view's or viewset's other bases.

    - Methods marked with ``queue_action`` are not wrapped in a transaction, the others stay as
      they are. In an ``APIView`` mark the handlers (``post``).
    - An outage during any request is answered 503 with ``Retry-After``, after a rollback where the
      request has a transaction.
    - ``Server-Timing`` tells how long the request has waited for NATS.
    """

    queue_alias = "default"

    @classmethod
    def as_view(cls, *args: Any, **initkwargs: Any) -> Any:
        view = super().as_view(*args, **initkwargs)
        actions: dict[str, str] = (args[0] if args else initkwargs.get("actions")) or {}
        names = actions.values() or cls.http_method_names
        if any(hasattr(getattr(cls, name, None), _MARK) for name in names):
            view = make_non_atomic(view)
        return view

    def waiting(self) -> waiting:
        """Around a call to NATS: see ``natslease.contrib.django.waiting``."""
        return waiting(self.request)

    def reserve(
        self,
        queues: Queue | Iterable[Queue],
        n: int,
        *,
        wait: float = 0.0,
        timeout: float | None = None,
    ) -> LeaseBatch[Lease]:
        """Takes tasks: see ``natslease.contrib.django.reserve``."""
        return reserve(self.request, queues, n, wait=wait, timeout=timeout, alias=self.queue_alias)

    def batch_size(self, request: Request, *names: str, default: int = 1) -> int:
        """How many tasks a client asks for.

        Args:
            names: of the value, in the body or the query; left out, "batch_size" and "batch".

        Raises:
            ValidationError: it is not a whole number from 1 to ``NATSLEASE_HTTP["MAX_BATCH"]``, or
                the body is no object.
        """
        body = request.data
        if not isinstance(body, dict):
            raise ValidationError("The body must be an object.")
        for name in names or ("batch_size", "batch"):
            value = body.get(name, request.query_params.get(name))
            if value is not None:
                return _batch(name, value)
        return default

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, ClientGone):
            exc = QueueUnavailable(GONE_STATUS, {}, {})
        elif isinstance(exc, natslease.Error) and (answered := error_response(exc)):
            exc = QueueUnavailable(*answered)
        return super().handle_exception(exc)

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        response = super().finalize_response(request, response, *args, **kwargs)
        add_timing(request, response)
        return response


def _batch(name: str, value: Any) -> int:
    most: int = http("MAX_BATCH")
    try:
        # int() takes 1.9 and True; and a text of a million digits takes it long.
        n = int(value) if not isinstance(value, (bool, float)) and len(str(value)) < 20 else 0
    except (TypeError, ValueError):
        n = 0
    if not 1 <= n <= most:
        raise ValidationError({name: [f"Must be a whole number from 1 to {most}."]})
    return n
