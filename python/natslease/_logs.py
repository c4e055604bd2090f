"""The core's log records in Python's logging."""

from __future__ import annotations

import sys

from ._native import Native
from ._wire import read_value


def hand_over(native: Native) -> None:
    """Logs what the core has logged since the last time, to the logger ``natslease``.

    The attributes are in the text, and each is also one of the record, by its name with
    ``natslease_`` before it: ``natslease_server``, ``natslease_retry_after`` (in seconds), ...
    """
    logs = read_value(native.logs())
    logging = sys.modules.get("logging")
    if logging is None:
        return  # nobody can have asked for them
    logger = logging.getLogger("natslease")
    for record in logs["records"] or ():
        # slog's levels are -4, 0, 4 and 8 where logging has 10, 20, 30 and 40.
        level = 20 + record["level"] * 10 // 4
        if logger.isEnabledFor(level):
            extra = {f"natslease_{name}": value for name, value in record["attrs"].items()}
            entry = logger.makeRecord(
                "natslease", level, "(core)", 0, record["message"], (), None, None, extra
            )
            entry.created = record["time"]
            logger.handle(entry)
    if logs["dropped"]:
        logger.warning("%d records of the core were dropped", logs["dropped"])
