"""Work queues on NATS JetStream, for synchronous and forking Python.

```python
client = Client("nats://localhost:4222", timeout=5.0)   # no I/O
queue = client.queue("images", ack_wait=300)
for lease in queue.reserve(64, wait=0.5):
    with lease:                                         # ack, or nak when the block raises
        work(lease.data)
```

Every call has a timeout, in seconds, and returns by it. Every error is a natslease.Error.
"""

from __future__ import annotations

from ._acksubject import parse_ack_subject
from ._client import Client
from ._errors import (
    AuthenticationFailed,
    Busy,
    CircuitOpen,
    ClientClosed,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    Error,
    InvalidLease,
    LeaseExpired,
    LeaseGone,
    NotLoaded,
    PayloadTooLarge,
    PermissionDenied,
    QueueNotFound,
    QueueUnavailable,
    Saturated,
    ServerError,
    StorageFull,
    Superseded,
    Unavailable,
)
from ._lease import AnyBatch, Lease, LeaseBatch
from ._queue import Queue
from ._types import (
    AccountInfo,
    AckSubject,
    BreakerStats,
    ConsumerInfo,
    DeadLetter,
    Message,
    PublishReport,
    PublishResult,
    QueueInfo,
    SettleResult,
    Stats,
    StreamInfo,
    StreamList,
)
from ._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._asyncio import AsyncClient, AsyncLease, AsyncQueue

__all__ = [
    "AccountInfo",
    "AckSubject",
    "AnyBatch",
    "AsyncClient",
    "AsyncLease",
    "AsyncQueue",
    "AuthenticationFailed",
    "BreakerStats",
    "Busy",
    "CircuitOpen",
    "Client",
    "ClientClosed",
    "ConfigError",
    "ConnectFailed",
    "ConnectionLost",
    "ConsumerInfo",
    "DeadLetter",
    "DeadlineExceeded",
    "Error",
    "InvalidLease",
    "Lease",
    "LeaseBatch",
    "LeaseExpired",
    "LeaseGone",
    "Message",
    "NotLoaded",
    "PayloadTooLarge",
    "PermissionDenied",
    "PublishReport",
    "PublishResult",
    "Queue",
    "QueueInfo",
    "QueueNotFound",
    "QueueUnavailable",
    "Saturated",
    "ServerError",
    "SettleResult",
    "Stats",
    "StorageFull",
    "StreamInfo",
    "StreamList",
    "Superseded",
    "Unavailable",
    "__version__",
    "parse_ack_subject",
]


def __getattr__(name: str) -> Any:
    # Only who uses it imports asyncio.
    if name in ("AsyncClient", "AsyncLease", "AsyncQueue"):
        from . import _asyncio

        return getattr(_asyncio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
