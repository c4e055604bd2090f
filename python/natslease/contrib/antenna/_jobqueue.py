"""The queue of a job, for synchronous code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import natslease
from natslease.contrib.django import clients

from . import _names, _task


class JobQueue:
    """The queue of a job: the same stream, subject and consumer as the application's earlier code
    uses, so that both can work side by side.

    >>> queue = JobQueue(job.pk, run=job.task_id)
    >>> queue.ensure()
    >>> report = queue.publish({"id": "1", "image_id": "17", "image_url": url} for ...)

    Every call has a timeout in seconds, and returns by it. Errors are those of ``natslease.Queue``.
    """

    def __init__(self, job_id: int, *, run: str | None = None, alias: str = "default") -> None:
        """Names the queue. Nothing is sent.

        Args:
            job_id: the job's number.
            run: names a run of the job. Within a run each image is queued once, however often it is
                published; a retried job has another run, and queues anew. Left out: each JobQueue
                is a run.
            alias: which of the site's NATSLEASE clients to use.
        """
        self.job_id = job_id
        self.run = run or _task.new_run()
        self.alias = alias
        self.queue: natslease.Queue = clients[alias].queue(
            **_names.names(job_id), **_names.queue_options(alias)
        )

    def __repr__(self) -> str:
        return f"<JobQueue of job {self.job_id}>"

    def ensure(self, *, timeout: float | None = _names.JETSTREAM_TIMEOUT) -> natslease.QueueInfo:
        """Creates what is missing; what exists is kept as it is."""
        return self.queue.ensure(timeout=timeout)

    def publish(
        self, tasks: Iterable[Any], *, timeout: float | None = None
    ) -> natslease.PublishReport:
        """Queues tasks: mappings or pydantic objects, each with an ``image_id`` or an ``id``.

        It waits for the server's word on each. What failed is in ``failed`` of the report, and can
        be published again with the same run: what was queued already is then a duplicate.
        """
        return self.queue.publish([_task.message_of(t, self.run) for t in tasks], timeout=timeout)

    def reserve(
        self, n: int = 1, *, wait: float = 0.0, timeout: float | None = None
    ) -> natslease.LeaseBatch[natslease.Lease]:
        """Takes up to n tasks; see ``natslease.Queue.reserve``."""
        return self.queue.reserve(n, wait=wait, timeout=timeout)

    def info(self, *, timeout: float | None = None) -> natslease.QueueInfo | None:
        """What the server says of the queue; None when there is none."""
        try:
            return self.queue.info(timeout=timeout)
        except natslease.QueueNotFound:
            return None

    def is_drained(self, *, timeout: float | None = None) -> bool:
        """Whether nothing waits and nothing is leased; also when there is no queue."""
        info = self.info(timeout=timeout)
        return info is None or info.num_pending + info.num_ack_pending == 0

    def dead_letters(self, n: int = 100, *, timeout: float | None = None) -> list[str]:
        """Image ids of tasks that were given up: delivered as often as allowed, never settled."""
        try:
            letters = self.queue.dead_letters(n, timeout=timeout)
        except natslease.QueueNotFound:
            return []
        return [image_id_of(letter) for letter in letters]

    def delete(self, *, timeout: float | None = _names.JETSTREAM_TIMEOUT) -> bool:
        """Removes the consumer and the stream. False when there was neither."""
        return self.queue.delete(timeout=timeout)


def image_id_of(letter: natslease.DeadLetter) -> str:
    """The image of a task that was given up."""
    try:
        fields = letter.json()
    except ValueError:
        fields = None
    if isinstance(fields, dict) and (image := fields.get("image_id") or fields.get("id")):
        return str(image)
    return letter.id.rpartition(":")[2] or str(letter.seq)
