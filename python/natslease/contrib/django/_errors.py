"""What an HTTP client is told when a queue cannot be used."""

from __future__ import annotations

import logging
import random
from math import ceil
from typing import Any

import natslease

logger = logging.getLogger("natslease.django")

OUTAGE = "Task queue temporarily unavailable"

# What is the caller's to correct, by the first that fits.
_CALLERS: tuple[tuple[type[natslease.Error], int], ...] = (
    (natslease.InvalidLease, 400),
    (natslease.PayloadTooLarge, 413),
    (natslease.QueueNotFound, 404),
    (natslease.LeaseGone, 410),
    (natslease.LeaseExpired, 409),
    (natslease.Superseded, 409),
)
# Mistakes of the site, which no waiting mends.
_OURS = (natslease.ConfigError, natslease.ClientClosed, natslease.NotLoaded)
# They do not pass by themselves; but somebody may be changing a password.
_NOT_SOON = (natslease.AuthenticationFailed, natslease.PermissionDenied)
_NOT_SOON_SECONDS = 30.0
# Calls fail together when their session is lost, and all that meet an open circuit are told the
# same moment: their clients are not to come back together.
_SOON_SECONDS = (0.5, 3.0)
_OPEN_MORE_SECONDS = 2.0
# Many of these say what one other error has said already.
_REPEATED = (natslease.CircuitOpen, natslease.Busy)


def error_response(error: natslease.Error) -> tuple[int, dict[str, Any], dict[str, str]] | None:
    """Status, JSON and headers for an error; None where it is a mistake of the site's own.

    Every outage is 503 with ``Retry-After``: what the error says, or else 1 to 3 s, by chance; with
    an open circuit 0 to 2 s, by chance, after the next attempt to connect.
    """
    for kind, status in _CALLERS:
        if isinstance(error, kind):
            return status, {"error": str(error), "code": error.code}, {}
    if isinstance(error, _OURS):
        return None
    if isinstance(error, _NOT_SOON):
        seconds = _NOT_SOON_SECONDS
        logger.error("a queue cannot be used: %s", error)
    else:
        seconds = error.retry_after or random.uniform(*_SOON_SECONDS)
        if isinstance(error, natslease.CircuitOpen):
            seconds += random.uniform(0.0, _OPEN_MORE_SECONDS)
        if not isinstance(error, _REPEATED):
            logger.warning("a queue is unavailable: %s", error.explain())
    body = {"error": OUTAGE, "code": error.code, "retry_after": round(seconds, 3)}
    return 503, body, {"Retry-After": str(max(ceil(seconds), 1))}
