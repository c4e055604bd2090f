"""Figures of clients for Prometheus (extra ``prometheus``).

>>> metrics = Metrics()
>>> metrics.watch(client)            # in /metrics from now on, labelled client="default"

It also works in several processes that share PROMETHEUS_MULTIPROC_DIR, as gunicorn's workers do,
and in their forked children.
"""

from __future__ import annotations

from ._metrics import Metrics

__all__ = ["Metrics"]
