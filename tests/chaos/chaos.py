"""Kills, freezes and restarts everything at random, and accounts for every task.

    python tests/chaos/chaos.py                      100,000 tasks, 100 kills, one server
    python tests/chaos/chaos.py --cluster            the same on three servers, three replicas
    python tests/chaos/chaos.py --short --seed 5     what CI runs

The exit status is 1 when an accepted task is lost, when one is in the queue twice, when one was
delivered again for no reason, or when porcupine finds no order in which the events of a task can
have happened (``make build/bin/linearizable`` builds what asks it).
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import history
import natslease
from account import Account, read
from natslease.testing import Cluster, Server

ACTORS = Path(__file__).with_name("actors.py")
ACK_WAIT = 2.0
WORKERS = 4
PUBLISHERS = 2
# A publisher is given so many tasks at a time; the next one goes on where it was killed.
PORTION = 500
DRAIN_TIMEOUT = 120.0


@dataclass
class Actor:
    """A process, and what it was started for."""

    role: str
    name: str
    process: subprocess.Popen[bytes]
    first: int = 0
    count: int = 0


@dataclass
class Chaos:
    """One run."""

    servers: list[Server]
    folder: Path
    chance: random.Random
    replicas: int
    account: Account = field(default_factory=Account)
    actors: list[Actor] = field(default_factory=list)
    started: int = 0
    kills: int = 0
    verdict: str = ""
    is_linearizable: bool = False

    @property
    def queue(self) -> dict[str, Any]:
        return {
            "stream": "chaos",
            "ack_wait": ACK_WAIT,
            "max_deliver": -1,
            "replicas": self.replicas,
        }

    def start(self, role: str, **portion: int) -> None:
        self.started += 1
        name = f"{role}-{self.started}"
        options = {
            "role": role,
            "name": name,
            "servers": [server.url for server in self.servers],
            "queue": self.queue,
            "journal": str(self.folder / f"{name}.journal"),
            **portion,
        }
        process = subprocess.Popen([sys.executable, ACTORS, json.dumps(options)])
        self.actors.append(Actor(role, name, process, **portion))

    def kill(self, actor: Actor) -> None:
        self.account.kills[actor.name] = time.time()
        actor.process.kill()
        actor.process.wait()
        self.actors.remove(actor)
        self.kills += 1

    def fault(self) -> None:
        """Something bad happens."""
        running = [actor for actor in self.actors if actor.process.poll() is None]
        workers = [actor for actor in running if actor.role == "worker"]
        publishers = [actor for actor in running if actor.role == "publisher"]
        what = self.chance.choices(
            ("worker", "publisher", "server", "frozen server", "frozen worker"), (4, 2, 2, 2, 2)
        )[0]
        if what == "worker" and workers:
            self.kill(self.chance.choice(workers))
            self.start("worker")
        elif what == "publisher" and publishers:
            victim = self.chance.choice(publishers)
            self.kill(victim)
            # The ids are another process's: what this one had under way may be in the queue or not.
            self.start("publisher", first=victim.first, count=victim.count)
        elif what == "frozen worker" and workers:
            victim = self.chance.choice(workers)
            began = time.time()
            victim.process.send_signal(signal.SIGSTOP)
            time.sleep(self.chance.uniform(0.5, 1.5 * ACK_WAIT))
            victim.process.send_signal(signal.SIGCONT)
            self.account.freezes.setdefault(victim.name, []).append((began, time.time()))
        else:
            self._server_fault(freeze=what == "frozen server")

    def _server_fault(self, *, freeze: bool) -> None:
        server = self.chance.choice(self.servers)
        began = time.time()
        if freeze:
            server.freeze()
            time.sleep(self.chance.uniform(0.3, 3.0))
            server.thaw()
        else:
            server.kill()
            self.kills += 1
            time.sleep(self.chance.uniform(0.0, 1.0))
            server.start()
        self.account.faults.append((began, time.time()))


def ensure(queue: natslease.Queue) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            queue.ensure()
        except natslease.Error:  # noqa: PERF203
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def run(chaos: Chaos, tasks: int, kills: int) -> None:
    with natslease.Client([server.url for server in chaos.servers], name="chaos") as client:
        queue = client.queue(**chaos.queue)
        ensure(queue)
        for _ in range(WORKERS):
            chaos.start("worker")
        portions = [(first, min(PORTION, tasks - first)) for first in range(0, tasks, PORTION)]
        share = len(portions) / max(kills, 1)
        done = 0.0
        while portions or any(actor.role == "publisher" for actor in chaos.actors):
            for actor in list(chaos.actors):
                if actor.role == "publisher" and actor.process.poll() is not None:
                    if actor.process.returncode:
                        raise SystemExit(f"{actor.name} ended with {actor.process.returncode}")
                    chaos.actors.remove(actor)
            while portions and sum(a.role == "publisher" for a in chaos.actors) < PUBLISHERS:
                first, count = portions.pop(0)
                chaos.start("publisher", first=first, count=count)
                done += 1
            if chaos.kills < kills and chaos.kills * share <= done:
                chaos.fault()
            time.sleep(0.02)
        drain(queue)
        left = [lease.data.decode() for lease in rest(queue)]
    for actor in chaos.actors:
        actor.process.kill()
        actor.process.wait()
        chaos.account.kills.setdefault(actor.name, time.time())
    read(chaos.folder, chaos.account)
    chaos.account.close(left)
    path = chaos.folder / "history.json"
    history.write(path, chaos.folder, chaos.account, ACK_WAIT, left)
    chaos.is_linearizable, chaos.verdict = history.check(path)


def drain(queue: natslease.Queue) -> None:
    """Waits until the workers have emptied the queue."""
    deadline = time.monotonic() + DRAIN_TIMEOUT
    while time.monotonic() < deadline:
        with suppress(natslease.Unavailable, natslease.DeadlineExceeded):
            if queue.info().messages == 0:
                return
        time.sleep(0.2)


def rest(queue: natslease.Queue) -> list[natslease.Lease]:
    left: list[natslease.Lease] = []
    with suppress(natslease.Unavailable):
        while batch := queue.reserve(1000):
            left += batch
    return left


def show(chaos: Chaos, seconds: float) -> None:
    account = chaos.account
    print(f"published         {len(account.accepted):,} accepted, {len(account.published):,} tried")
    print(f"processes         {chaos.started}, {chaos.kills} kills of processes and servers")
    print(f"lost              {len(account.lost)}")
    print(f"in the queue twice {len(account.duplicated)}")
    print(f"unexplained       {len(account.unexplained)}")
    print(f"unknown tasks     {len(account.strange)}")
    print(f"history           {chaos.verdict}")
    for what, count in sorted(account.counts.items()):
        print(f"  {what:45} {count:,}")
    for text in account.unexplained[:5]:
        print(text)
    if account.unexplained:
        print(f"kills {account.kills}\nfaults of servers {account.faults}")
    print(f"{seconds:.0f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--cluster", action="store_true", help="three servers, three replicas")
    parser.add_argument("--short", action="store_true", help="5,000 tasks, 10 kills")
    options = parser.parse_args()
    if options.short:
        options.tasks, options.kills = 5_000, 10
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    with ExitStack() as stack:
        if options.cluster:
            servers = stack.enter_context(Cluster()).servers
        else:
            servers = [stack.enter_context(Server())]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        chaos = Chaos(servers, folder, random.Random(seed), 3 if options.cluster else 1)
        began = time.monotonic()
        try:
            run(chaos, options.tasks, options.kills)
        finally:
            for actor in chaos.actors:
                actor.process.kill()
        show(chaos, time.monotonic() - began)
    return 0 if chaos.account.is_sound and chaos.is_linearizable else 1


if __name__ == "__main__":
    raise SystemExit(main())
