"""A round trip against the server at argv[1], with nothing but natslease and its interpreter."""

from __future__ import annotations

import sys

import natslease


def main(url: str) -> None:
    payloads = [b"", b"\0", bytes(range(256)) * 100]
    client = natslease.Client(url, timeout=5.0)
    queue = client.queue("smoke_{}_{}".format(*sys.version_info), ack_wait=30)
    queue.ensure()
    report = queue.publish(payloads)
    if len(report.accepted) != len(payloads):
        raise SystemExit(f"published {payloads!r:.60}: {report}")
    batch = queue.reserve(len(payloads), wait=1.0)
    if [lease.data for lease in batch] != payloads:
        raise SystemExit(f"reserved {batch!r:.200}")
    results = queue.ack(batch)
    if any(result.status != "settled" for result in results):
        raise SystemExit(f"acknowledged: {results}")
    if queue.reserve(1, wait=0):
        raise SystemExit("an acknowledged task was delivered again")
    queue.delete()
    client.close()


main(sys.argv[1])
