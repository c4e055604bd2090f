"""Who a worker is."""

from __future__ import annotations

import socket
from pathlib import Path


def default_host() -> str:
    """Names this host, or container: the host name, and the id of the PID namespace.

    Two containers may have the same host name, but not the same namespace.
    """
    name = socket.gethostname() or "localhost"
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        return name
    return f"{name}-{''.join(c for c in namespace if c.isdigit())}"
