"""Views over queues, plain and by Django REST framework."""

from __future__ import annotations

import time
from typing import Any

from django.db import connection
from django.http import HttpRequest, JsonResponse
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

import natslease
from natslease.contrib.django import (
    LeaseRef,
    async_clients,
    clients,
    emit_lease,
    queue_view,
    reserve,
    waiting,
)
from natslease.contrib.drf import LeaseField, SettleMixin, queue_action

from .models import Result
from .tasks import save_result


class ItemSerializer(serializers.Serializer[Any]):
    """One posted result."""

    reply_subject = LeaseField()
    text = serializers.CharField(max_length=100)


class QueueViewSet(SettleMixin, viewsets.ViewSet):
    """Queues by the names of their streams."""

    item_serializer_class = ItemSerializer

    def queue(self, pk: str) -> natslease.Queue:
        return clients["default"].queue(pk)

    def list(self, request: Request) -> Response:
        """Not marked: it stays in a transaction."""
        return Response({"atomic": connection.in_atomic_block, "results": Result.objects.count()})

    def create(self, request: Request) -> Response:
        """Saves something, and then needs the queue."""
        Result.objects.create(task="made", text="")
        for result in self.queue("images").publish([b"made"]).failed:
            assert result.error is not None
            raise result.error
        return Response(status=201)

    @action(detail=True, methods=["get", "post"])
    @queue_action
    def tasks(self, request: Request, pk: str) -> Response:
        atomic = connection.in_atomic_block
        Result.objects.count()  # as any view asks the database first
        batch = self.reserve(
            self.queue(pk),
            self.batch_size(request),
            wait=float(request.query_params.get("wait", 0)),
        )
        tasks = [{"data": x.data.decode(), "reply_subject": emit_lease(x)} for x in batch]
        return Response({"tasks": tasks, "atomic": atomic})

    @action(detail=True, methods=["post"])
    @queue_action
    def result(self, request: Request, pk: str) -> Response:
        answers = self.settle_items(self.queue(pk), self.items_of(request))
        return Response({"tasks": answers})

    def accept_item(self, ref: LeaseRef, item: dict[str, Any]) -> dict[str, Any]:
        if item["text"] == "unwanted":
            raise serializers.ValidationError({"text": ["It is unwanted."]})
        return {"task_id": save_result.delay(ref.to_dict(), item["text"]).id}


@queue_view
def tasks(request: HttpRequest) -> JsonResponse:
    """A plain view."""
    Result.objects.count()
    queue = clients["default"].queue("images")
    batch = reserve(request, queue, 5, wait=float(request.GET.get("wait", 0)))
    return JsonResponse({"tasks": [lease.data.decode() for lease in batch]})


@queue_view
async def tasks_async(request: HttpRequest) -> JsonResponse:
    """A plain view that awaits."""
    await Result.objects.acount()
    queue = async_clients["default"].queue("images")
    async with waiting(request):
        batch = await queue.reserve(5, wait=float(request.GET.get("wait", 0)))
    return JsonResponse({"tasks": [lease.data.decode() for lease in batch]})


def careless(request: HttpRequest) -> JsonResponse:
    """A view as it should not be: it waits inside its transaction."""
    Result.objects.count()
    clients["default"].queue("images").reserve(5, wait=float(request.GET.get("wait", 0)))
    return JsonResponse({})


def stub(request: HttpRequest) -> JsonResponse:
    """The control: the answer of an outage, with nothing behind it but the database."""
    Result.objects.count()
    body = {"error": "Task queue temporarily unavailable", "code": "stub", "retry_after": 1.0}
    return JsonResponse(body, status=503, headers={"Retry-After": "1"})


def unrelated(request: HttpRequest) -> JsonResponse:
    """Nothing to do with queues. It can take its time, in its transaction."""
    results = Result.objects.count()
    time.sleep(float(request.GET.get("seconds", 0)))
    return JsonResponse({"results": results})
