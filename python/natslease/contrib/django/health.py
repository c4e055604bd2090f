"""Health probes: a plain view, and a check for django-health-check.

>>> urlpatterns = [path("health/nats/", health)]
"""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse

import natslease

from . import _settings
from ._clients import clients
from ._errors import OUTAGE
from ._views import make_non_atomic

# Who probes does not wait long.
TIMEOUT = 1.0


def health(
    request: HttpRequest, alias: str = _settings.DEFAULT_ALIAS, timeout: float = TIMEOUT
) -> JsonResponse:
    """200 when the server has answered a ping, else 503; ``{"status": "ok", "rtt_ms": 0.2}``.

    It needs no database, and answers within the timeout; while the circuit breaker is open, at
    once. Readiness, not liveness: a process that cannot reach NATS need not be restarted.

    Args:
        alias, timeout: for ``path("health/", health, {"alias": "other"})``; seconds.
    """
    client = clients[alias]
    try:
        rtt = client.ping(timeout=timeout)
    except natslease.Error as error:
        body = {"status": "unavailable", "code": error.code, "error": OUTAGE}
        return JsonResponse(
            {**body, "breaker": client.stats().breaker.state},
            status=503,
            headers={"Cache-Control": "no-store"},
        )
    return JsonResponse(
        {"status": "ok", "rtt_ms": round(rtt * 1e3, 3), "server": client.stats().server_name},
        headers={"Cache-Control": "no-store"},
    )


health = make_non_atomic(health)
