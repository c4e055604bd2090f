"""Runs a cluster of three nats-servers through what a cluster is for, and accounts for every task.

Four processes drain a queue that is published to all the time, while

1. the server that leads the queue is killed, and comes back;
2. all servers are replaced one by one, as in an upgrade: lame duck, stop, start, catch up.

The exit status is 1 when a task is lost, when a worker has ended, or when work did not go on.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import natslease
import worker
from deploy import PATIENCE, Deployment, await_health
from natslease.testing import Server, find_server

WORKERS = 4
PORTION = 20
PAUSE = 0.1  # seconds between two portions


class Publisher:
    """Publishes until it is stopped; what is not certain to be in the queue is published again."""

    def __init__(self, client: natslease.Client) -> None:
        self._queue = worker.open_queue(client)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.accepted: set[str] = set()
        self.repeated = 0
        self.error: Exception | None = None

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Returns when the last portion is in the queue."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            number = 0
            while not self._over.wait(PAUSE):
                self._publish([f"task-{n}" for n in range(number, number + PORTION)])
                number += PORTION
        except Exception as error:  # noqa: BLE001 (raised where the example ends)
            self.error = error

    def _publish(self, ids: list[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while ids:
            try:
                report = self._queue.publish([natslease.Message(b"{}", id=name) for name in ids])
            except natslease.Unavailable:
                failed = ids
            else:
                # The same id again: the server stores it once, whatever became of the first.
                failed = [result.id for result in report.failed]
            self.accepted.update(set(ids) - set(failed))
            self.repeated += len(failed)
            if failed and time.monotonic() > deadline:
                raise TimeoutError(f"{len(failed)} tasks could not be published")
            ids = failed
            if ids:
                time.sleep(PAUSE)


class Example:
    """One run."""

    def __init__(self, cluster: Deployment, folder: Path) -> None:
        self.cluster = cluster
        self.began = time.time()
        self.janitor = cluster.client("janitor")
        self.queue = worker.open_queue(self.janitor)
        self.journals = [folder / f"worker-{n}" for n in range(WORKERS)]
        self.workers: list[subprocess.Popen[bytes]] = []
        self.pauses: dict[str, float] = {}

    def say(self, text: str) -> None:
        print(f"{time.time() - self.began:6.1f} s  {text}", flush=True)

    def prepare(self) -> None:
        """What only the janitor may: makes the queue, and what the workers are tracked in."""
        self.queue.ensure(timeout=PATIENCE)
        worker.open_fleet(self.janitor).ensure(timeout=PATIENCE)
        info = self.queue.info()
        versions = {str(server.varz()["version"]) for server in self.cluster.servers}
        self.say(f"3 servers {', '.join(versions)}; job_1 has {info.replicas} replicas")

    def start_workers(self, stack: ExitStack) -> None:
        program = Path(worker.__file__)
        for slot, journal in enumerate(self.journals):
            process = subprocess.Popen(
                [sys.executable, program, str(slot), journal],
                env=self.cluster.environment("worker"),
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            self.workers.append(process)

    def done(self) -> list[tuple[float, str]]:
        """When each task was done, in their order."""
        lines = [
            line.split()
            for journal in self.journals
            if journal.exists()
            for line in journal.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        return sorted((float(at), name) for at, name in lines)

    def await_work(self, since: float, count: int = PORTION) -> None:
        """Waits until so many tasks were done after a moment."""
        deadline = time.monotonic() + PATIENCE
        while sum(at > since for at, _ in self.done()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing was done for {PATIENCE} s")
            time.sleep(PAUSE)

    def note_pause(self, what: str, since: float) -> None:
        """How long at most nobody finished a task, since a moment."""
        times = [since, *(at for at, _ in self.done() if at > since), time.time()]
        pause = max(later - at for at, later in pairwise(times))
        self.pauses[what] = pause
        self.say(f"{what}: work stood still for {pause:.1f} s at most")

    def kill_leader(self) -> None:
        """Kills the server that leads the queue, and lets it come back."""
        led = self.queue.info().leader
        leader = next(server for server in self.cluster.servers if server.name == led)
        killed = time.time()
        leader.kill()
        self.say(f"{led}, the leader of job_1, is killed")
        self.await_work(killed)
        self.say(f"work goes on without {led}, led by {self.queue.info(timeout=PATIENCE).leader}")
        leader.start()
        await_health(leader)
        self.note_pause(f"{led} is back", killed)

    def replace(self, binary: Path) -> None:
        """Replaces the servers one by one; the one that leads JetStream is the last."""
        first = self.cluster.servers[0]
        leads = first.jsz()["meta_cluster"].get("leader", "")
        for server in sorted(self.cluster.servers, key=lambda server: server.name == leads):
            began = time.time()
            self._replace(server, binary)
            self.await_work(time.time())
            self.note_pause(f"{server.name} is replaced by {server.varz()['version']}", began)

    def _replace(self, server: Server, binary: Path) -> None:
        # It gives its leaderships away, tells its clients, which leave at once, and ends.
        server.lame_duck()
        deadline = time.monotonic() + PATIENCE
        while server.is_running:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{server.name} does not end")
            time.sleep(PAUSE)
        server.binary = binary
        server.start()
        await_health(server)

    def end(self, publisher: Publisher) -> int:
        """Drains, ends the workers, and accounts for the tasks."""
        publisher.stop()
        deadline = time.monotonic() + PATIENCE
        while self.queue.info(timeout=PATIENCE).messages and time.monotonic() < deadline:
            time.sleep(PAUSE)
        online = [w for w in worker.open_fleet(self.janitor).workers() if w.status == "online"]
        for process in self.workers:
            process.send_signal(signal.SIGTERM)
        statuses = [process.wait(PATIENCE) for process in self.workers]
        times = Counter(name for _, name in self.done())
        lost = publisher.accepted - set(times)
        left = self.queue.info().messages
        dead = self.queue.dead_letters()
        again = sum(times.values()) - len(times)
        refused = [
            line
            for server in self.cluster.servers
            for line in server.log.splitlines()
            if "Violation" in line
        ]
        self.janitor.close()
        rows = {
            "accepted": f"{len(publisher.accepted):,}, of which {publisher.repeated} sent again",
            "done": f"{len(times):,} by {len(online)} workers, {again} of them more than once",
            "lost": f"{len(lost)}",
            "left": f"{left} in the queue, {len(dead)} dead letters",
            "stood still": f"{max(self.pauses.values()):.1f} s at most",
        }
        print("\n" + "\n".join(f"{label:<13}{text}" for label, text in rows.items()))
        problems = []
        if publisher.error is not None:
            problems.append(f"publishing failed: {publisher.error!r}")
        if lost or left or dead:
            problems.append("tasks were lost")
        if len(online) != WORKERS or any(statuses):
            problems.append(f"workers ended with {statuses}, {len(online)} were online")
        if refused:
            problems.append(f"a role lacks a permission: {refused[0]}")
        print("\n" + ("FAILED: " + "; ".join(problems) if problems else "Nothing was lost."))
        return 1 if problems else 0


def main() -> int:
    """Runs the example; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade-from", type=Path, help="the nats-server that they begin with")
    options = parser.parse_args()
    newest = find_server()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="natslease-")))
        cluster = stack.enter_context(Deployment(options.upgrade_from or newest))
        example = Example(cluster, folder)
        example.prepare()
        example.start_workers(stack)
        with cluster.client("web") as web, Publisher(web) as publisher:
            example.await_work(0)
            example.kill_leader()
            example.replace(newest)
            return example.end(publisher)


if __name__ == "__main__":
    sys.exit(main())
