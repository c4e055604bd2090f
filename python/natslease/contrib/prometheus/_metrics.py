"""The figures of ``client.stats()`` as metrics."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.registry import Collector

import natslease

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

    AnyClient = natslease.Client | natslease.AsyncClient

_GAUGES = {
    "connected": "Whether there is a connection: 1 or 0.",
    "in_flight": "Calls under way.",
    "kept": "Leases that are extended until they are settled.",
    "queues": "Queues that are in use.",
}
_COUNTERS = {
    "sessions_opened": "Connections that were opened.",
    "sessions_lost": "Connections that died.",
    "dial_failures": "Connections that could not be opened.",
    "late_messages": "Tasks that arrived after their call had given up.",
}
_BREAKER_OPEN = "Whether the circuit breaker lets no call through: 1 or 0."
_BREAKER_OPENED = "How often the circuit breaker has opened."
_LABEL = "client"


class Metrics:
    """The metrics of the clients that are watched; making it registers them.

    In one process they are read when they are asked for. Where PROMETHEUS_MULTIPROC_DIR is set, who
    is asked is one process of several: there each process that has a watched client writes its
    figures to the shared folder every ``interval`` seconds, from a thread of its own.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry = REGISTRY,
        namespace: str = "natslease",
        interval: float = 5.0,
    ) -> None:
        """Registers the metrics.

        Args:
            registry: where.
            namespace: what their names begin with.
            interval: seconds, with several processes.
        """
        # Without several processes the registry asks _Reader, which asks these.
        several = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        own = registry if several else None
        self._gauges = {
            name: Gauge(
                name,
                text,
                [_LABEL],
                namespace=namespace,
                registry=own,
                multiprocess_mode="livesum",
            )
            for name, text in {**_GAUGES, "breaker_open": _BREAKER_OPEN}.items()
        }
        self._counters = {
            name: Counter(name, text, [_LABEL], namespace=namespace, registry=own)
            for name, text in {**_COUNTERS, "breaker_opened": _BREAKER_OPENED}.items()
        }
        self._lock = threading.Lock()
        self._clients: WeakValueDictionary[str, AnyClient] = WeakValueDictionary()
        self._counted: dict[tuple[str, str], int] = {}
        self._interval = interval
        self._several = several
        self._writer: _Writer | None = None
        if several:
            # prometheus_client has a lock of its own, which nobody could let go of in a child: no
            # fork while the writer holds it.
            os.register_at_fork(
                before=self._lock.acquire,
                after_in_parent=self._lock.release,
                after_in_child=self._after_fork,
            )
        else:
            registry.register(_Reader(self))

    def watch(self, client: AnyClient, name: str = "default") -> None:
        """Has a client's figures shown under the label ``client="<name>"``, as long as it is used.

        Does no I/O, and does not connect.
        """
        self._clients[name] = client
        if self._several:
            self._start()

    def refresh(self) -> None:
        """Takes the figures over now."""
        with self._lock:
            for name, client in list(self._clients.items()):
                try:
                    self._take_over(name, client.stats())
                except natslease.Error:  # noqa: PERF203 (closed)
                    self._clients.pop(name, None)

    def _take_over(self, name: str, stats: natslease.Stats) -> None:
        for field, gauge in self._gauges.items():
            value = (
                stats.breaker.state == "open" if field == "breaker_open" else getattr(stats, field)
            )
            gauge.labels(name).set(value)
        for field, counter in self._counters.items():
            total = stats.breaker.opened if field == "breaker_opened" else getattr(stats, field)
            # Of another process's, or another client's of that name: it has begun again at 0.
            before = self._counted.get((name, field), 0)
            counter.labels(name).inc(total - before if total >= before else total)
            self._counted[name, field] = total

    def metrics(self) -> Iterator[Metric]:
        """What the registry collects."""
        self.refresh()
        for metric in (*self._gauges.values(), *self._counters.values()):
            yield from metric.collect()

    def _start(self) -> None:
        with self._lock:
            if self._writer is None:
                self._writer = _Writer(self, self._interval)
                self._writer.start()

    def _after_fork(self) -> None:
        # The child has no threads, and its clients begin at 0.
        self._lock.release()
        self._counted.clear()
        self._writer = None
        if self._clients:
            self._start()


class _Reader(Collector):
    """Reads the figures when the registry is asked."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.metrics()

    def describe(self) -> list[Metric]:
        return []  # registering asks nothing


class _Writer(threading.Thread):
    """Writes the figures to the shared folder again and again; ends with its process."""

    def __init__(self, metrics: Metrics, interval: float) -> None:
        super().__init__(name="natslease-prometheus", daemon=True)
        self._metrics = metrics
        self._interval = interval

    def run(self) -> None:
        pause = threading.Event()
        while True:
            self._metrics.refresh()
            pause.wait(self._interval)
