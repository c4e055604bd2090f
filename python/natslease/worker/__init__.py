"""Workers: processes that reserve tasks, work on them, and settle them.

>>> source = QueueSource(client, [client.queue("images")])
>>> def handle(batch):
...     for task in batch:
...         yield work(task.payload)
>>> sys.exit(Worker(source, handle).run())

``HTTPSource`` in place of ``QueueSource`` takes the tasks from a server like Antenna. For workers
of another shape, such as ``natslease.contrib.torch.TaskDataset``, there are the parts that
``Worker`` is made of: ``Custody`` (who has which lease), ``Ending`` (signals, grace, fencing) and
``Backoff``.
"""

from __future__ import annotations

from ._backoff import Backoff
from ._custody import Custody
from ._ending import Abandoned, Ending
from ._exit import ExitCode, exit_code
from ._queues import QueueSource
from ._slots import die_with_parent, run_slots
from ._source import Source, passes
from ._task import Batch, Done, Failed, Outcome, Status, Task, reason_of
from ._watch import Parent
from ._worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._http import HTTPSource

__all__ = [
    "Abandoned",
    "Backoff",
    "Batch",
    "Custody",
    "Done",
    "Ending",
    "ExitCode",
    "Failed",
    "HTTPSource",
    "Outcome",
    "Parent",
    "QueueSource",
    "Source",
    "Status",
    "Task",
    "Worker",
    "die_with_parent",
    "exit_code",
    "passes",
    "reason_of",
    "run_slots",
]


def __getattr__(name: str) -> Any:
    # Only who uses it needs requests.
    if name == "HTTPSource":
        from ._http import HTTPSource

        return HTTPSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
