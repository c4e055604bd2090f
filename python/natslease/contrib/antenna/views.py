"""What workers ask of the application over HTTP: tasks, results, more time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from django.core.exceptions import ImproperlyConfigured
from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

import natslease
from natslease.contrib.django import LeaseRef, accept_lease, emit_lease
from natslease.contrib.drf import LeaseField, SettleMixin, queue_action

from . import _fleet, _names, _registry, _requests, _task
from ._jobqueue import JobQueue
from ._worker import WorkerInfo, worker_of

logger = logging.getLogger("natslease.contrib.antenna")

_Kind = Literal["extend", "nak", "release"]

# reserve_any takes hundreds of queues; the jobs that have waited longest come first.
MAX_JOBS = 500
_LEAST_LEFT = 0.1
_RETURNED = {"settled": "released"}
_EXTENDED = {"settled": "extended"}
_NAKED = {"settled": "nak"}


class ResultItemSerializer(serializers.Serializer[Any]):
    """One result: by which lease, and what was found."""

    reply_subject = LeaseField(max_age=_names.STREAM_AGE)
    result = serializers.JSONField()


if TYPE_CHECKING:

    class _Base(SettleMixin, GenericViewSet[Any]):
        pass

else:
    _Base = SettleMixin


class JobQueueMixin(_Base):
    """Gives a viewset of jobs the actions that workers use; it comes before the viewset's bases.

    A job has ``pk``, ``status``, ``dispatch_mode``, ``pipeline`` (with ``slug``) and ``project``.
    ``get_queryset()`` returns the jobs that the request's token may see. What a site adds:

    - ``queue_result(job, ref, result)`` has a result saved, in Celery as a rule, and returns what
      is told of it: ``{"task_id": ...}``;
    - ``pipelines()``, for tasks of several jobs: the pipelines that the token may see; and
      ``projects()``, the projects;
    - ``note_worker(worker, job)``: a worker has asked.
    """

    # Seconds for all that a request asks NATS for, besides the wait for a first task. Workers give
    # up after 5 s: what is answered later nobody reads.
    queue_timeout = 2.0

    item_serializer_class = ResultItemSerializer
    lease_field_name = "reply_subject"

    # What sites override.

    def queue_result(self, job: Any, ref: LeaseRef, result: Any) -> dict[str, Any]:
        """Has a result saved. The task is to be acknowledged when that is committed."""
        raise ImproperlyConfigured(f"{type(self).__name__} has no queue_result()")

    def pipelines(self) -> QuerySet[Any]:
        """The pipelines that the token may see."""
        raise ImproperlyConfigured(f"{type(self).__name__} has no pipelines()")

    def projects(self) -> QuerySet[Any] | None:
        """The projects that the token may see. None: requests that name others are not refused,
        there are no tasks in them."""
        return None

    def note_worker(self, worker: WorkerInfo, job: Any | None) -> None:
        """A worker has asked for tasks of a job, or of several (None), or has sent results."""

    def get_object(self) -> Any:
        # Not every database takes every number, and Django before 5.0 asks for any.
        given = str(self.kwargs[self.lookup_url_kwarg or self.lookup_field])
        if not (given.isdecimal() and len(given) < 19):
            raise NotFound
        return super().get_object()

    # Tasks.

    @action(detail=True, methods=["get", "post"], url_path="tasks")
    @queue_action
    def tasks(self, request: Request, pk: Any = None) -> Response:
        """Tasks of one job. None means that the job is done for now."""
        job = self.get_object()
        worker, n, wait = self._asked(request)
        if not self._serves(job, worker):
            return Response({"tasks": []})
        left = self._admit(worker, job)
        queue = JobQueue(job.pk, alias=self.queue_alias).queue
        try:
            batch = self.reserve(queue, n, wait=wait, timeout=wait + left)
        except natslease.QueueNotFound:
            logger.info("job %s has no queue: no tasks for %s", job.pk, worker)
            return Response({"tasks": []})
        return Response({"tasks": self._give(batch, {job.pk: job}, worker, many=False)})

    @action(detail=False, methods=["post"], url_path="tasks")
    @queue_action
    def any_tasks(self, request: Request) -> Response:
        """Tasks of all jobs that the token may see, or of those with the named pipelines."""
        worker, n, wait = self._asked(request)
        jobs = {job.pk: job for job in self._active_jobs(request)}
        left = self._admit(worker, None)
        if not jobs:
            return Response({"tasks": []})
        queues = [JobQueue(pk, alias=self.queue_alias).queue for pk in jobs]
        try:
            batch = self.reserve(queues, n, wait=wait, timeout=wait + left)
        except natslease.QueueNotFound:
            return Response({"tasks": []})
        errors = getattr(batch, "errors", {})
        if errors and not batch:
            raise next(iter(errors.values()))
        for queue, error in errors.items():
            logger.warning("%s could not be asked: %s", queue.stream, error)
        return Response({"tasks": self._give(batch, jobs, worker, many=True)})

    def _asked(self, request: Request) -> tuple[WorkerInfo, int, float]:
        worker = worker_of(request)
        n = self.batch_size(request, "batch_size", "batch")
        return worker, n, _requests.wait_of(request)

    def _serves(self, job: Any, worker: WorkerInfo) -> bool:
        """Whether the job has a queue to ask. Says who asked for one that does not serve."""
        if job.dispatch_mode != _names.ASYNC_API:
            raise ValidationError(
                {"error": f"job {job.pk} has dispatch mode {job.dispatch_mode}: no tasks to pull"}
            )
        if job.status in _names.ACTIVE:
            return True
        logger.warning("job %s is %s: no tasks for %s", job.pk, job.status, worker)
        return False

    def _active_jobs(self, request: Request) -> Iterable[Any]:
        jobs = self.get_queryset().filter(status__in=_names.ACTIVE, dispatch_mode=_names.ASYNC_API)
        named = _requests.slugs_of(_requests.body_of(request).get("pipelines"))
        if named:
            _requests.refuse_unknown("pipelines", named, self.pipelines(), "slug")
            jobs = jobs.filter(pipeline__slug__in=named)
        projects = _requests.numbers_of(request, "projects")
        if projects is not None:
            if (visible := self.projects()) is not None:
                _requests.refuse_unknown("projects", set(projects), visible, "pk")
            jobs = jobs.filter(project__in=projects)
        found: Iterable[Any] = jobs.select_related("pipeline").order_by("pk").distinct()[:MAX_JOBS]
        return found

    def _admit(self, worker: WorkerInfo, job: Any | None) -> float:
        """Takes note of a worker. One that was superseded gets no further (409).

        Returns:
            How many of the seconds for asking NATS are left.
        """
        self.note_worker(worker, job)
        began = monotonic()
        with self.waiting():
            _fleet.admit(worker, self.queue_alias, self.queue_timeout)
        return max(self.queue_timeout - (monotonic() - began), _LEAST_LEFT)

    def _give(
        self,
        batch: Iterable[natslease.Lease],
        jobs: dict[Any, Any],
        worker: WorkerInfo,
        *,
        many: bool,
    ) -> list[dict[str, Any]]:
        """The tasks of leases, as a worker gets them."""
        tasks, given = [], []
        for lease in batch:
            fields = _task.read(lease)
            if fields is None:
                # It would come again, and be no better then.
                logger.error("task %s of %s is no JSON object", lease.id, lease.queue.stream)
                lease.queue.term([lease], "the task cannot be read")
                continue
            fields.setdefault("attempt", lease.attempt)
            fields["reply_subject"] = emit_lease(lease, alias=self.queue_alias)
            if many:
                job = jobs[_names.job_of_stream(lease.queue.stream)]
                fields["job_id"], fields["pipeline_slug"] = job.pk, job.pipeline.slug
            given.append(lease)
            tasks.append(fields)
        if given:
            _fleet.record("reserve", worker, given, self.queue_alias)
            names = ", ".join(f"{lease.queue.stream}/{lease.id or lease.seq}" for lease in given)
            logger.info("%d tasks to %s: %s", len(given), worker, names)
        return tasks

    # Results.

    @action(detail=True, methods=["post"], url_path="result")
    @queue_action
    def result(self, request: Request, pk: Any = None) -> Response:
        """Results of one job. Each is answered for itself."""
        job = self.get_object()
        worker, items = worker_of(request), _requests.items_of(request, "results")
        # NATS is not asked for anything: results are taken over during an outage too, and a worker
        # that was superseded has done what it has done.
        self.note_worker(worker, job)
        return Response(_requests.accepted(job.pk, self._settle_of(worker, job, items)))

    @action(detail=False, methods=["post"], url_path="result")
    @queue_action
    def any_result(self, request: Request) -> Response:
        """Results of several jobs."""
        worker, items = worker_of(request), _requests.items_of(request, "results")
        self.note_worker(worker, None)
        answers = self._by_job(items, "reply_subject", partial(self._settle_of, worker))
        return Response(_requests.accepted(None, answers))

    def _settle_of(self, worker: WorkerInfo, job: Any, items: list[Any]) -> list[dict[str, Any]]:
        if job.status in _names.FINAL:
            error = f"job {job.pk} is {job.status}"
            return [_requests.told(item, "gone", error) for item in items]
        self._job = job
        self._taken: list[str] = []
        queue = JobQueue(job.pk, alias=self.queue_alias).queue
        answers = self.settle_items(queue, items)
        # Who has done them; the acks themselves follow when the results are saved.
        _fleet.record("ack", worker, self._taken, self.queue_alias)
        return answers

    def accept_item(self, ref: LeaseRef, item: Any) -> dict[str, Any] | None:
        """Hands a result on; called for each that is not known yet."""
        told = self.queue_result(self._job, ref, item["result"])
        self._taken.append(ref.ack_subject)
        return told

    # Time.

    @action(detail=True, methods=["post"], url_path="extend")
    @queue_action
    def extend(self, request: Request, pk: Any = None) -> Response:
        """Starts the leases' time anew."""
        return self._of_one(request, "extend", _EXTENDED)

    @action(detail=False, methods=["post"], url_path="extend")
    @queue_action
    def any_extend(self, request: Request) -> Response:
        """The same, for leases of several jobs."""
        return self._of_any(request, "extend", _EXTENDED)

    @action(detail=True, methods=["post"], url_path="release")
    @queue_action
    def release(self, request: Request, pk: Any = None) -> Response:
        """Gives tasks back that were not started."""
        return self._of_one(request, "release", _RETURNED)

    @action(detail=False, methods=["post"], url_path="release")
    @queue_action
    def any_release(self, request: Request) -> Response:
        """The same, for tasks of several jobs."""
        return self._of_any(request, "release", _RETURNED)

    @action(detail=True, methods=["post"], url_path="nak")
    @queue_action
    def nak(self, request: Request, pk: Any = None) -> Response:
        """Gives tasks back that have failed: they are offered again while attempts are left."""
        return self._of_one(request, "nak", _NAKED)

    @action(detail=False, methods=["post"], url_path="nak")
    @queue_action
    def any_nak(self, request: Request) -> Response:
        """The same, for tasks of several jobs."""
        return self._of_any(request, "nak", _NAKED)

    def _of_one(self, request: Request, how: _Kind, words: dict[str, str]) -> Response:
        job = self.get_object()
        worker, items = worker_of(request), _requests.items_of(request, "reply_subjects")
        self._admit(worker, job)
        return self._leases(self._settle_leases(job, worker, items, how, words))

    def _of_any(self, request: Request, how: _Kind, words: dict[str, str]) -> Response:
        worker, items = worker_of(request), _requests.items_of(request, "reply_subjects")
        self._admit(worker, None)

        def settle(job: Any, of_job: list[Any]) -> list[dict[str, Any]]:
            return self._settle_leases(job, worker, of_job, how, words)

        return self._leases(self._by_job(items, None, settle))

    def _leases(self, leases: list[dict[str, Any]]) -> Response:
        return Response({"leases": leases, "ack_wait": _names.setting("NATS_TASK_TTR")})

    # Who has what.

    @action(detail=True, methods=["get"], url_path="workers")
    @queue_action
    def workers(self, request: Request, pk: Any = None) -> Response:
        """The workers that have, or had, tasks of the job."""
        job = self.get_object()
        with self.waiting():
            found = _registry.holders_of(_names.stream_name(job.pk), self.queue_alias)
        return Response({"workers": found})

    @action(detail=True, methods=["get"], url_path=r"tasks/(?P<task>[^/]{1,200})/workers")
    @queue_action
    def task_workers(self, request: Request, pk: Any = None, task: str = "") -> Response:
        """Who has a task, and who had it: by its id in the queue, or its sequence."""
        job = self.get_object()
        with self.waiting():
            found = _registry.history_of(_names.stream_name(job.pk), task, self.queue_alias)
        if found is None:
            raise NotFound({"error": f"nothing is known of task {task} of job {job.pk}"})
        return Response(found)

    def _settle_leases(
        self,
        job: Any,
        worker: WorkerInfo,
        items: list[Any],
        how: _Kind,
        words: dict[str, str],
    ) -> list[dict[str, Any]]:
        queue = JobQueue(job.pk, alias=self.queue_alias).queue
        answers: list[dict[str, Any]] = [{} for _ in items]
        found: dict[int, str] = {}
        for i, item in enumerate(items):
            ref = self._accept(item, queue)
            if isinstance(ref, LeaseRef):
                found[i] = ref.ack_subject
            else:
                status = "gone" if isinstance(ref, natslease.LeaseGone) else "invalid"
                answers[i] = _requests.told(item, status, str(ref))
        if found:
            options = _requests.nak_options_of(self.request) if how == "nak" else {}
            with self.waiting():
                settle = getattr(queue, how)
                results = settle(list(found.values()), timeout=self.queue_timeout, **options)
            for i, result in zip(found, results, strict=True):
                status = words.get(result.status, result.status)
                answers[i] = _requests.told(items[i], status, str(result.error or ""))
            _fleet.record(how, worker, found.values(), self.queue_alias)
        return answers

    def _accept(self, item: Any, queue: natslease.Queue) -> LeaseRef | natslease.Error:
        try:
            return accept_lease(item, queue, alias=self.queue_alias, max_age=_names.STREAM_AGE)
        except (natslease.InvalidLease, natslease.LeaseGone) as error:
            return error

    def _by_job(
        self,
        items: list[Any],
        key: str | None,
        settle: Callable[[Any, list[Any]], list[dict[str, Any]]],
    ) -> list[dict[str, Any]]:
        """Deals items to their jobs, those that the token may see, and collects the answers."""
        answers: list[dict[str, Any]] = [{} for _ in items]
        places: dict[int, list[int]] = {}
        for i, item in enumerate(items):
            lease = item.get(key) if key and isinstance(item, dict) else item
            job_id = self.job_of_lease(lease)
            if job_id is None:
                answers[i] = _requests.told(item, "invalid", "it is not a lease of a job")
            else:
                places.setdefault(job_id, []).append(i)
        jobs = self.get_queryset().filter(pk__in=places).select_related("pipeline").in_bulk()
        for job_id, of_job in places.items():
            if (job := jobs.get(job_id)) is None:
                for i in of_job:
                    answers[i] = _requests.told(
                        items[i], "invalid", "it is not a lease of your jobs"
                    )
                continue
            for i, answer in zip(of_job, settle(job, [items[i] for i in of_job]), strict=True):
                answers[i] = answer
        return answers

    def job_of_lease(self, lease: Any) -> int | None:
        """The job that a lease string speaks of; what it says is checked with the job's queue."""
        if not isinstance(lease, str):
            return None
        try:
            if lease.startswith("$JS."):
                stream = natslease.parse_ack_subject(lease).stream
            else:
                stream = accept_lease(lease, None, alias=self.queue_alias).stream
        except natslease.InvalidLease:
            return None
        return _names.job_of_stream(stream)
