"""Results that HTTP clients post: each item stands for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.exceptions import ErrorDetail, ValidationError

from natslease.contrib.django import LeaseRef
from natslease.contrib.django._settings import http
from natslease.contrib.django.inbox import applied

from ._views import QueueViewMixin

if TYPE_CHECKING:
    from rest_framework.request import Request
    from rest_framework.serializers import BaseSerializer

    from natslease import Queue


class SettleMixin(QueueViewMixin):
    """For views to which results are posted.

    Attributes:
        item_serializer_class: of one item: a ``LeaseField`` and the result.
        lease_field_name: of that ``LeaseField``.
        inbox_database: the alias of the database with the inbox; None: where the router puts it.
    """

    item_serializer_class: type[BaseSerializer[Any]]
    lease_field_name = "reply_subject"
    inbox_database: str | None = None

    def accept_item(self, ref: LeaseRef, item: dict[str, Any]) -> dict[str, Any] | None:
        """Takes over one result, as a rule by a Celery task (with ``ref.to_dict()``) that saves it
        inside ``apply_once(ref)``, which also acknowledges the lease.

        Args:
            item: what the serializer has made of the item.

        Returns:
            What to add to the item's answer, such as the id of the task.

        Raises:
            ValidationError: this one is invalid.
        """
        raise NotImplementedError

    def items_of(self, request: Request, name: str = "results") -> list[Any]:
        """What a client has posted under that name, for ``settle_items``.

        Raises:
            ValidationError: the body is no object, or has no list of that name.
        """
        items = request.data.get(name) if isinstance(request.data, dict) else None
        if not isinstance(items, list):
            raise ValidationError({name: ["Must be a list."]})
        return items

    def settle_items(self, queue: Queue | None, items: Any) -> list[dict[str, Any]]:
        """Takes the posted items over, each by itself.

        Args:
            queue: what the leases must be of; None: signed leases of any.

        Returns:
            For each item what it had as its lease, and ``status``: "queued": it was taken over;
            "duplicate": it was taken over before; "gone": its queue has forgotten it; "invalid":
            ``error`` tells why.

        Raises:
            ValidationError: items is no list, or has more than ``NATSLEASE_HTTP["MAX_RESULTS"]``.
        """
        most = http("MAX_RESULTS")
        if not isinstance(items, list) or len(items) > most:
            raise ValidationError(f"The results must be a list of at most {most}.")
        context = {**self.get_serializer_context(), "queue": queue}
        answers: list[dict[str, Any]] = []
        valid: list[tuple[dict[str, Any], LeaseRef, dict[str, Any]]] = []
        for item in items:
            answer: dict[str, Any] = {self.lease_field_name: self._lease_of(item)}
            answers.append(answer)
            serializer = self.item_serializer_class(data=item, context=context)
            if serializer.is_valid():
                validated = serializer.validated_data
                valid.append((answer, validated[self.lease_field_name], validated))
            else:
                answer.update(self._refusal(serializer.errors))
        known = applied((ref for _, ref, _ in valid), using=self.inbox_database)
        for answer, ref, validated in valid:
            if ref.key in known:
                answer["status"] = "duplicate"
                continue
            try:
                more = self.accept_item(ref, validated)
            except ValidationError as error:
                answer.update(self._refusal(error.detail))
                continue
            known.add(ref.key)  # the same task twice in one request
            answer.update({"status": "queued", **(more or {})})
        return answers

    def get_serializer_context(self) -> dict[str, Any]:
        return {"request": self.request, "format": self.format_kwarg, "view": self}

    def _lease_of(self, item: Any) -> Any:
        # A stranger's string is given back as it came, unless it is none or no one could want it.
        lease = item.get(self.lease_field_name) if isinstance(item, dict) else None
        return lease if isinstance(lease, str) and len(lease) <= 2_000 else None

    def _refusal(self, errors: Any) -> dict[str, Any]:
        own = errors.get(self.lease_field_name, ()) if isinstance(errors, dict) else ()
        gone = any(isinstance(e, ErrorDetail) and e.code == "gone" for e in own)
        return {"status": "gone" if gone else "invalid", "error": errors}
