"""Real servers, and networks that fail, for the tests of programs that use natslease.

```python
with Server() as server:                  # a nats-server with JetStream, in a temporary directory
    client = natslease.Client(server.url)
    with server.frozen():                 # it is there, and says nothing
        ...
    server.restart()                      # on the same port, with its data
    with Proxy(server.url) as proxy:      # a way to it that stalls, trickles, swallows or breaks
        proxy.stall()
```

With pytest the fixtures ``nats_server`` and ``nats_url`` are there without further ado.

Errors:

```
TestingError(natslease.Error, RuntimeError)
    ServerNotFound      there is no nats-server binary
    ServerFailed        a server did not start, or did not answer: ``.log`` is what it has written
```
"""

from ._binary import find_server
from ._cluster import Cluster
from ._errors import ServerFailed, ServerNotFound, TestingError
from ._memory import Memory
from ._proxy import Direction, Proxy
from ._server import Server

__all__ = [
    "Cluster",
    "Direction",
    "Memory",
    "Proxy",
    "Server",
    "ServerFailed",
    "ServerNotFound",
    "TestingError",
    "find_server",
]
