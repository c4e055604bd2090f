"""Workers: processes that reserve tasks, work on them, and settle them.

>>> source = QueueSource(client, [client.queue("images")])
>>> def handle(batch):
...     for task in batch:
...         yield work(task.payload)
>>> sys.exit(Worker(source, handle).run())

``HTTPSource`` in place of ``QueueSource`` takes the tasks from a server like Antenna.
"""

from __future__ import annotations

from ._ending import Abandoned
from ._exit import ExitCode, exit_code
from ._queues import QueueSource
from ._slots import die_with_parent, run_slots
from ._source import Source
from ._task import Batch, Done, Failed, Outcome, Status, Task
from ._worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._http import HTTPSource

__all__ = [
    "Abandoned",
    "Batch",
    "Done",
    "ExitCode",
    "Failed",
    "HTTPSource",
    "Outcome",
    "QueueSource",
    "Source",
    "Status",
    "Task",
    "Worker",
    "die_with_parent",
    "exit_code",
    "run_slots",
]


def __getattr__(name: str) -> Any:
    # Only who uses it needs requests.
    if name == "HTTPSource":
        from ._http import HTTPSource

        return HTTPSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
