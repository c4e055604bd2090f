"""A check for django-health-check (4.0 or later).

>>> HealthCheckView.as_view(checks=["natslease.contrib.django.health_check.NATS", ...])
"""

from __future__ import annotations

import dataclasses
import datetime

from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable

import natslease

from . import _settings
from ._clients import async_clients
from .health import TIMEOUT


@dataclasses.dataclass
class NATS(HealthCheck):  # type: ignore[misc] # it has no types
    """Whether the server answers a ping.

    Args:
        alias: of the client.
        timeout: for the answer.
    """

    alias: str = _settings.DEFAULT_ALIAS
    timeout: datetime.timedelta = datetime.timedelta(seconds=TIMEOUT)

    async def run(self) -> None:
        """Asks the server.

        Raises:
            ServiceUnavailable: there was no answer in time.
        """
        try:
            await async_clients[self.alias].ping(timeout=self.timeout.total_seconds())
        except natslease.Error as error:
            raise ServiceUnavailable(f"NATS does not answer ({error.code})") from error
