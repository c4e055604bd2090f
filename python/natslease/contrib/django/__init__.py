"""natslease in Django: clients by alias, queue views that hold no database connection, an inbox.

>>> NATSLEASE = {"default": {"URL": "nats://localhost:4222", "TIMEOUT": 5.0}}   # settings.py
>>> INSTALLED_APPS = [..., "natslease.contrib.django"]

>>> queue = clients["default"].queue("images", ack_wait=300)

Nothing connects before the first call that needs a connection; after a fork there is nothing to do.
"""

from __future__ import annotations

from ._clients import AsyncClients, Clients, async_clients, clients
from ._database import give_back_database
from ._errors import error_response
from ._fleet import fleet_of, sweep
from ._leases import LeaseRef, accept_lease, emit_lease
from ._views import ClientGone, queue_view, reserve
from ._waiting import waiting

__all__ = [
    "AsyncClients",
    "ClientGone",
    "Clients",
    "LeaseRef",
    "accept_lease",
    "async_clients",
    "clients",
    "emit_lease",
    "error_response",
    "fleet_of",
    "give_back_database",
    "queue_view",
    "reserve",
    "sweep",
    "waiting",
]
