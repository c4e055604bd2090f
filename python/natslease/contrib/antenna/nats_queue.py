"""Stands in for the application's ``ami.ml.orchestration.nats_queue``: one import changes.

Everything here is awaited, as before, and needs no connection of its own: the process's is used.
``get_connection`` and the manager's ``nc`` and ``js`` are deprecated: they open a connection of
nats-py for code that still reaches into it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.utils.module_loading import import_string

import natslease
from natslease.contrib.django import async_clients

from . import _names, _natspy, _task
from ._jobqueue import image_id_of
from ._names import ADVISORY_STREAM_NAME
from ._natspy import get_connection
from ._snapshots import list_snapshots, populate_redelivered

__all__ = [
    "ADVISORY_STREAM_NAME",
    "NATS_JETSTREAM_TIMEOUT",
    "NATS_MAX_DELIVER",
    "TASK_TTR",
    "ConsumerState",
    "TaskQueueManager",
    "get_connection",
]

logger = logging.getLogger(__name__)

NATS_JETSTREAM_TIMEOUT = _names.JETSTREAM_TIMEOUT

# Clients by URL, for managers that are given one. They live as long as the process: so does the
# connection.
_clients: dict[str, natslease.AsyncClient] = {}


if TYPE_CHECKING:
    NATS_MAX_DELIVER: int
    TASK_TTR: int


def __getattr__(name: str) -> Any:
    # Settings are not read while modules are imported.
    if name == "TASK_TTR":
        return _names.setting("NATS_TASK_TTR")
    if name == "NATS_MAX_DELIVER":
        return _names.setting("NATS_MAX_DELIVER")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class ConsumerState:
    """What the server counts for a job's consumer.

    Attributes:
        num_pending: tasks that wait.
        num_ack_pending: tasks that are leased.
        num_redelivered: of those, the ones that were given out before.
    """

    num_pending: int
    num_ack_pending: int
    num_redelivered: int


class TaskQueueManager:
    """The queues of the application's jobs, as its own manager has them.

    >>> async with TaskQueueManager(job_logger=job.logger) as manager:
    ...     await manager.ensure_job_resources(job.pk)

    Where the application's own answered with an empty list, None or False when something was
    wrong, this one raises what its callers turn into a 503: ``natslease.Unavailable``, an OSError,
    or ``natslease.DeadlineExceeded``, a TimeoutError.
    """

    def __init__(
        self,
        nats_url: str | None = None,
        max_ack_pending: int | None = None,
        job_logger: logging.Logger | None = None,
        *,
        run: str | None = None,
    ) -> None:
        """Nothing is sent.

        Args:
            nats_url: of the server; left out, the site's "default" client.
            max_ack_pending: how many tasks of a job can be leased; left out,
                ``NATS_MAX_ACK_PENDING``.
            job_logger: hears what is done for its job. It writes to the database, so it is called
                in a thread.
            run: names a run of a job, within which each image is queued once; left out, the
                manager is one.
        """
        self.nats_url = nats_url or str(_names.setting("NATS_URL"))
        self.max_ack_pending = max_ack_pending or int(_names.setting("NATS_MAX_ACK_PENDING"))
        self.job_logger = job_logger
        self.run = run or _task.new_run()
        self._given_url = nats_url
        self._client: natslease.AsyncClient | None = None
        self._queues: dict[int, natslease.AsyncQueue] = {}
        self._told: set[int] = set()
        self._opened: tuple[Any, Any] | None = None
        self._nc: Any = _natspy.Lazy(self._open_nc, lambda: self._opened and self._opened[0])
        self._js: Any = _natspy.Lazy(self._open_js, lambda: self._opened and self._opened[1])

    async def __aenter__(self) -> TaskQueueManager:
        self._client = self._process_client()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client = None
        self._queues.clear()
        opened, self._opened = self._opened, None
        if opened is not None:
            await _natspy.close_connection(opened[0])

    def _process_client(self) -> natslease.AsyncClient:
        if self._given_url is None:
            return async_clients["default"]
        client = _clients.get(self._given_url)
        if client is None:
            client = _clients[self._given_url] = natslease.AsyncClient(
                self._given_url,
                timeout=_names.JETSTREAM_TIMEOUT,
                connect_timeout=_names.CONNECT_TIMEOUT,
            )
        return client

    @property
    def client(self) -> natslease.AsyncClient:
        """The process's client.

        Raises:
            RuntimeError: outside the ``async with`` block.
        """
        if self._client is None:
            raise RuntimeError("use TaskQueueManager as a context manager: async with ... as ...")
        return self._client

    def _queue(self, job_id: int) -> natslease.AsyncQueue:
        client = self.client
        queue = self._queues.get(job_id)
        if queue is None:
            options = {**_names.queue_options(), "max_ack_pending": self.max_ack_pending}
            queue = self._queues[job_id] = client.queue(**_names.names(job_id), **options)
        return queue

    # Names that tests and commands of the application reach into.

    def _get_stream_name(self, job_id: int) -> str:
        return _names.stream_name(job_id)

    def _get_subject(self, job_id: int) -> str:
        return _names.subject(job_id)

    def _get_consumer_name(self, job_id: int) -> str:
        return _names.consumer_name(job_id)

    async def _ensure_stream(self, job_id: int) -> None:
        await self.ensure_job_resources(job_id)

    async def _ensure_consumer(self, job_id: int) -> None:
        await self.ensure_job_resources(job_id)

    @property
    def nc(self) -> Any:
        """A connection of nats-py, opened when it is first awaited. Deprecated."""
        return self._nc

    @nc.setter
    def nc(self, value: Any) -> None:
        self._nc = value

    @property
    def js(self) -> Any:
        """JetStream of that connection. Deprecated."""
        return self._js

    @js.setter
    def js(self, value: Any) -> None:
        self._js = value

    async def _open(self) -> tuple[Any, Any]:
        _ = self.client  # only inside the block, which closes it
        if self._opened is None:
            self._opened = await get_connection(self.nats_url)
        return self._opened

    async def _open_nc(self) -> Any:
        return (await self._open())[0]

    async def _open_js(self) -> Any:
        return (await self._open())[1]

    # Logging.

    async def log_async(self, level: int, msg: str, *, exc_info: bool = False) -> None:
        """Writes a line to the module's logger, and to the job's, which may use the database."""
        logger.log(level, msg, exc_info=exc_info)
        if self.job_logger is None or self.job_logger is logger:
            return
        try:
            await sync_to_async(self.job_logger.log)(level, msg, exc_info=exc_info)
        except Exception:
            logger.exception("the job's log could not be written")

    # Operations.

    async def ensure_job_resources(self, job_id: int) -> None:
        """Creates the job's stream and consumer where they are missing, and keeps what is there.

        Raises:
            natslease.Error: it could not be done.
        """
        info = await self._queue(job_id).ensure(timeout=NATS_JETSTREAM_TIMEOUT)
        if job_id in self._told:
            return
        self._told.add(job_id)
        await self.log_async(
            logging.INFO,
            f"{'Created' if info.created else 'Reusing'} stream {info.stream} ({info.subject}, "
            f"{info.retention}, {info.storage}) and consumer {info.consumer} (ack_wait "
            f"{info.ack_wait:g} s, max_deliver {info.max_deliver}, max_ack_pending "
            f"{info.max_ack_pending}): messages {info.messages}, {_counters(info)}",
        )

    async def publish_task(self, job_id: int, data: Any) -> bool:
        """Queues a task; whether the server has accepted it.

        Args:
            data: a pydantic object, or a mapping, with an ``image_id`` or an ``id``.
        """
        queue = self._queue(job_id)
        try:
            message = _task.message_of(data, self.run)
            (result,) = await queue.publish([message], timeout=NATS_JETSTREAM_TIMEOUT)
            if result.error is None:
                return True
            error: Exception = result.error
        except (natslease.Error, TypeError, ValueError) as failure:
            error = failure
        await self.log_async(
            logging.ERROR, f"Failed to publish a task of job {job_id}: {error}", exc_info=False
        )
        return False

    async def reserve_tasks(self, job_id: int, count: int, timeout: float = 5) -> list[Any]:
        """Takes up to ``count`` tasks, and waits up to ``timeout`` seconds for the first.

        Returns:
            Task objects with their ``reply_subject``; none when the queue is empty, or missing.

        Raises:
            natslease.Error: the queue cannot be asked, or all it may give out is given out. That is
                not the end of the job.
        """
        try:
            batch = await self._queue(job_id).reserve(
                count, wait=timeout, timeout=timeout + NATS_JETSTREAM_TIMEOUT
            )
        except natslease.QueueNotFound:
            logger.info("job %s has no queue: no tasks", job_id)
            return []
        make = _task_class()
        tasks: list[Any] = []
        for lease in batch:
            task = None
            if (fields := _task.read(lease)) is not None:
                try:
                    task = make(**fields)
                    task.reply_subject = lease.ack_subject
                except (TypeError, ValueError) as error:
                    logger.warning("task %s of job %s is none: %s", lease.id, job_id, error)
            if task is None:
                # It would come again, and be no better then.
                await self._queue(job_id).term([lease], "the task cannot be read")
                continue
            tasks.append(task)
        return tasks

    async def acknowledge_task(self, reply_subject: str) -> bool:
        """Settles a task as done; whether the server has confirmed it."""
        job_id = _names.job_of_ack_subject(reply_subject)
        if job_id is None:
            logger.warning("%.100r does not acknowledge a task of a job", reply_subject)
            return False
        (result,) = await self._queue(job_id).ack([reply_subject], timeout=NATS_JETSTREAM_TIMEOUT)
        if result.status == "settled":
            return True
        logger.warning("a task of job %s was not acknowledged: %s", job_id, result.error)
        return False

    async def get_consumer_state(self, job_id: int) -> ConsumerState | None:
        """What the server counts for the job; None when it has no queue.

        Raises:
            natslease.Error: the server cannot be asked.
        """
        try:
            info = await self._queue(job_id).info(timeout=NATS_JETSTREAM_TIMEOUT)
        except natslease.QueueNotFound:
            return None
        return ConsumerState(info.num_pending, info.num_ack_pending, info.num_redelivered)

    async def log_consumer_stats_snapshot(self, job_id: int) -> None:
        """Logs what the server counts for the job. Never raises: it is only told."""
        try:
            state = await self.get_consumer_state(job_id)
        except natslease.Error as error:
            logger.warning("consumer stats of job %s are not known: %s", job_id, error)
            return
        if state is not None:
            await self.log_async(logging.INFO, f"Job {job_id} consumer stats: {_counters(state)}")

    async def list_job_stream_snapshots(self) -> list[dict[str, Any]]:
        """What the server says of each job's stream.

        Returns:
            Of each ``job_id``, ``stream_name``, ``created`` (local time without a time zone, or
            None), ``messages`` and ``num_redelivered`` (None: see below).
        """
        return await list_snapshots(self.client)

    async def populate_redelivered_counts(
        self, snapshots: list[dict[str, Any]], concurrency: int = 8
    ) -> None:
        """Fills in ``num_redelivered``; it stays None where it cannot be found out."""
        await populate_redelivered(self.get_consumer_state, snapshots, concurrency)

    async def get_dead_letter_image_ids(self, job_id: int, n: int = 10) -> list[str]:
        """Images of tasks that were given up; each is told once."""
        queue = self._queue(job_id)
        try:
            letters = await queue.dead_letters(n, timeout=NATS_JETSTREAM_TIMEOUT)
            if letters:
                await queue.discard(letters, timeout=NATS_JETSTREAM_TIMEOUT)
        except natslease.QueueNotFound:
            return []
        return [image_id_of(letter) for letter in letters]

    async def delete_consumer(self, job_id: int) -> bool:
        """Removes the job's consumer; whether it is gone."""
        return await self._gone("consumer", job_id, self._queue(job_id).delete_consumer)

    async def delete_stream(self, job_id: int) -> bool:
        """Removes the job's stream, and its consumer; whether they are gone."""
        return await self._gone("stream", job_id, self._queue(job_id).delete)

    async def delete_dlq_consumer(self, job_id: int) -> bool:
        """Removes the reader of advisories that earlier versions have made; whether it is gone."""
        reader = self.client.queue(ADVISORY_STREAM_NAME, consumer=_names.dlq_consumer_name(job_id))
        return await self._gone("dead-letter reader", job_id, reader.delete_consumer)

    async def _gone(self, what: str, job_id: int, delete: Callable[..., Awaitable[bool]]) -> bool:
        try:
            await delete(timeout=NATS_JETSTREAM_TIMEOUT)
        except natslease.Error as error:
            logger.warning("the %s of job %s was not deleted: %s", what, job_id, error)
            return False
        return True

    async def cleanup_job_resources(self, job_id: int) -> bool:
        """Removes what the job has on the server, after a last line of its consumer's stats;
        whether all of it is gone."""
        await self.log_consumer_stats_snapshot(job_id)
        gone = [
            await self.delete_consumer(job_id),
            await self.delete_stream(job_id),
            await self.delete_dlq_consumer(job_id),
        ]
        return all(gone)


def _counters(state: ConsumerState | natslease.QueueInfo) -> str:
    return (
        f"pending {state.num_pending}, ack_pending {state.num_ack_pending}, redelivered "
        f"{state.num_redelivered}"
    )


def _task_class() -> Any:
    """What tasks are made of: the class that ``NATSLEASE_ANTENNA`` names, or ``Task``."""
    options = getattr(settings, "NATSLEASE_ANTENNA", {})
    named = options.get("TASK_CLASS", _task.Task)
    return import_string(named) if isinstance(named, str) else named
