"""Leases as strings: signed or raw, and what is accepted of what strangers send."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time
from typing import Any

import pytest
from django.core.signing import Signer
from rest_framework import serializers

import natslease
from natslease.contrib.django import LeaseRef, accept_lease, clients, emit_lease
from natslease.contrib.drf import LeaseField

ACK = "$JS.ACK.images.images.1.17.39.1795000000123456789.4"
LONG = "$JS.ACK.hub.ACCOUNT.images.images.1.17.39.1795000000123456789.4.random"
PUBLISHED = 1_795_000_000.123456789


@pytest.fixture
def queue(site: Any) -> natslease.Queue:
    return clients["default"].queue("images")


def test_a_lease_goes_out_and_comes_back(images: natslease.Queue) -> None:
    images.publish([b"x"])
    (lease,) = images.reserve(1, wait=5)
    text = emit_lease(lease)
    assert "$JS" not in text
    assert "images" not in text
    ref = accept_lease(text, images)
    assert ref == LeaseRef.of(lease)
    assert (ref.stream, ref.consumer) == ("images", "images")
    assert (ref.seq, ref.attempt) == (lease.seq, 1)
    assert ref.key == ("images", "images", ref.published, lease.seq)
    assert ref.published / 1_000_000_000 == lease.published_at
    # As it travels to a worker of Celery.
    there = LeaseRef.from_dict(json.loads(json.dumps(ref.to_dict())))
    assert there == ref
    (result,) = there.queue().ack([there.ack_subject])
    assert result.status == "settled"


@pytest.mark.parametrize("ack", [ACK, LONG])
def test_both_forms_of_ack_subjects(queue: natslease.Queue, ack: str) -> None:
    ref = accept_lease(emit_lease(LeaseRef(ack)), queue)
    assert ref.key == ("images", "images", 1_795_000_000_123_456_789, 17)
    assert ref.to_dict() == {
        "ack_subject": ack,
        "alias": "default",
        "consumer": "images",
        "stream": "images",
    }


def test_it_is_what_django_signs(queue: natslease.Queue) -> None:
    """So Django can check it, and the key is derived as Django derives it."""
    text = emit_lease(LeaseRef(ACK))
    value = Signer(salt="natslease.lease.default").unsign(text)
    assert base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode() == ACK


def test_keys_rotate(site: Any, queue: natslease.Queue) -> None:
    site.SECRET_KEY = "old"
    old = emit_lease(LeaseRef(ACK))
    site.SECRET_KEY, site.SECRET_KEY_FALLBACKS = "new", ["older", "old"]
    assert accept_lease(old, queue).ack_subject == ACK
    new = emit_lease(LeaseRef(ACK))
    assert new != old
    site.SECRET_KEY, site.SECRET_KEY_FALLBACKS = "old", ["new"]  # the roll-out is rolled back
    assert accept_lease(new, queue).ack_subject == ACK
    site.SECRET_KEY_FALLBACKS = []
    with pytest.raises(natslease.InvalidLease, match="signature"):
        accept_lease(new, queue)


def forgeries() -> dict[str, Any]:
    text = Signer(salt="natslease.lease.default", key="only for tests").sign(
        base64.urlsafe_b64encode(ACK.encode()).decode().rstrip("=")
    )
    value, signature = text.split(":")
    purge = base64.urlsafe_b64encode(b"$JS.API.STREAM.PURGE.images").decode().rstrip("=")
    unkeyed = hmac.new(b"", value.encode(), hashlib.sha256).digest()
    return {
        "empty": "",
        "no signature": value,
        "an empty signature": value + ":",
        "another value": f"{purge}:{signature}",
        "a signature of nothing": f":{signature}",
        "one letter changed": f"{value}:{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
        "cut": text[:-1],
        "longer": text + "A",
        "padded": text + "=",
        "a line break after it": text + "\n",
        "a second signature": f"{text}:{signature}",
        "without a key": f"{value}:{base64.urlsafe_b64encode(unkeyed).decode().rstrip('=')}",
        "another salt": Signer(salt="other", key="only for tests").sign(value),
        "raw": ACK,
        "a command": "$JS.API.STREAM.PURGE.images",
        "the queue's subject": "images",
        "huge": "A" * 1_000_000,
        "not ASCII": f"{value}:\N{SNOWMAN}",
        "half a character": "\ud800",
        "NUL": "\0",
        "no text": 17,
        "null": None,
        "a list": [text],
    }


@pytest.mark.parametrize("name", forgeries())
def test_forgeries(queue: natslease.Queue, name: str) -> None:
    with pytest.raises(natslease.InvalidLease):
        accept_lease(forgeries()[name], queue)
    with pytest.raises(serializers.ValidationError):
        LeaseField(queue=queue).run_validation(forgeries()[name])


def test_random_strings(site: Any, queue: natslease.Queue) -> None:
    site.NATSLEASE_HTTP = {"ACCEPT_LEASES": ["raw", "signed"]}
    text = emit_lease(LeaseRef(ACK))
    for i in range(2000):
        changed = bytearray(text.encode())
        changed[i % len(changed)] ^= 1 + os.urandom(1)[0] % 127
        if changed.decode("latin-1") != text:
            with pytest.raises(natslease.InvalidLease):
                accept_lease(changed.decode("latin-1"), queue)


@pytest.mark.parametrize(
    "ack",
    [
        ACK.replace("images.images", "job_8.images"),
        ACK.replace("images.images", "images.job_8"),
        LONG.replace("images.images", "job_8.images"),
    ],
)
def test_leases_of_other_queues(site: Any, queue: natslease.Queue, ack: str) -> None:
    site.NATSLEASE_HTTP = {"ACCEPT_LEASES": ["raw", "signed"]}
    for text in (emit_lease(LeaseRef(ack)), ack):
        with pytest.raises(natslease.InvalidLease, match="not a lease of the queue images"):
            accept_lease(text, queue)


def test_leases_of_another_alias(site: Any, queue: natslease.Queue) -> None:
    site.NATSLEASE = {"default": {"URL": "nats://a"}, "other": {"URL": "nats://b"}}
    text = emit_lease(LeaseRef(ACK, "other"))
    with pytest.raises(natslease.InvalidLease, match="signature"):
        accept_lease(text, queue)
    assert accept_lease(text, queue, alias="other").alias == "other"


@pytest.mark.parametrize(
    "raw",
    [
        "$JS.ACK.images.images.1.17.39.1795000000123456789",
        "$JS.ACK.images.images.1.17.39.1795000000123456789.4\r\nPUB x 0\r\n",
        "$JS.ACK.images.*.1.17.39.1795000000123456789.4",
        "$JS.ACK.images.images.1.017.39.1795000000123456789.4",
        "$JS.ACK.>",
    ],
)
def test_raw_strings_that_are_no_ack_subjects(site: Any, queue: natslease.Queue, raw: str) -> None:
    site.NATSLEASE_HTTP = {"ACCEPT_LEASES": ["raw"], "EMIT_LEASES": "raw"}
    with pytest.raises(natslease.InvalidLease, match="is no ack subject"):
        accept_lease(raw, queue)


def test_raw_needs_the_queue(site: Any) -> None:
    site.NATSLEASE_HTTP = {"ACCEPT_LEASES": ["raw", "signed"]}
    with pytest.raises(natslease.InvalidLease, match="only where its queue is known"):
        accept_lease(ACK, None)
    assert accept_lease(emit_lease(LeaseRef(ACK)), None).stream == "images"


def test_they_are_valid_as_long_as_the_stream_keeps_messages(queue: natslease.Queue) -> None:
    text = emit_lease(LeaseRef(ACK))
    age = time.time() - PUBLISHED
    assert accept_lease(text, queue, max_age=age + 60)
    with pytest.raises(natslease.LeaseGone):
        accept_lease(text, queue, max_age=age - 60)
    with pytest.raises(serializers.ValidationError) as refused:
        LeaseField(queue=queue, max_age=age - 60).run_validation(text)
    assert refused.value.get_codes() == ["gone"]


WEB = {
    "raw": {"ACCEPT_LEASES": ["raw"], "EMIT_LEASES": "raw"},
    "prepared": {"ACCEPT_LEASES": ["raw", "signed"], "EMIT_LEASES": "raw"},
    "switched": {"ACCEPT_LEASES": ["raw", "signed"], "EMIT_LEASES": "signed"},
    "signed": {"ACCEPT_LEASES": ["signed"], "EMIT_LEASES": "signed"},
}


@pytest.mark.parametrize(
    ("emits", "accepts"),
    [
        (here, there)
        for step in (("raw", "prepared"), ("prepared", "switched"))
        for here in step
        for there in step
    ],
)
def test_a_rolling_deploy_and_its_rollback(
    site: Any, images: natslease.Queue, emits: str, accepts: str
) -> None:
    """In each step old and new web processes run side by side, in either direction."""
    images.publish([b"x"])
    (lease,) = images.reserve(1, wait=5)
    site.NATSLEASE_HTTP = WEB[emits]
    text = emit_lease(lease)
    site.NATSLEASE_HTTP = WEB[accepts]
    message = accept_lease(text, images).to_dict()
    # What goes to Celery is the same, whichever of them has taken it.
    assert message["ack_subject"] == lease.ack_subject
    assert LeaseRef.from_dict(message).queue().ack([message["ack_subject"]])[0].status == "settled"


def test_what_is_still_out_when_raw_is_no_longer_accepted(
    site: Any, images: natslease.Queue
) -> None:
    site.NATSLEASE_HTTP = WEB["switched"]
    text = emit_lease(LeaseRef(ACK))
    site.NATSLEASE_HTTP = WEB["signed"]
    assert accept_lease(text, images)
    with pytest.raises(natslease.InvalidLease, match="send back what came with the task"):
        accept_lease(ACK, images)


def test_64_signed_leases_cost_half_a_millisecond(queue: natslease.Queue) -> None:
    refs = [LeaseRef(ACK.replace(".17.", f".{i}.")) for i in range(100, 164)]
    field = LeaseField(queue=queue)

    def best(work: Any) -> float:
        return min(_seconds(work) for _ in range(50))

    texts = [field.to_representation(ref) for ref in refs]
    out = best(lambda: [field.to_representation(ref) for ref in refs])
    back = best(lambda: [field.to_internal_value(text) for text in texts])
    assert [field.to_internal_value(text) for text in texts] == refs
    assert out <= 0.5e-3, f"{out * 1e3:.2f} ms to sign"
    assert back <= 0.5e-3, f"{back * 1e3:.2f} ms to check"


def _seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
