"""Results that are posted: each item stands for itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

import natslease
from natslease.contrib.django import LeaseRef, emit_lease
from natslease.contrib.django.models import InboxEntry
from testsite.models import Result

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/api/queues/images/result/"


def post(client: Client, body: Any, path: str = PATH) -> Any:
    data = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return client.post(path, data, content_type="application/json")


def results(client: Client, *items: Any) -> list[dict[str, Any]]:
    answer = post(client, {"results": items})
    assert answer.status_code == 200, answer.content
    listed: list[dict[str, Any]] = answer.json()["tasks"]
    assert len(listed) == len(items)
    return listed


@pytest.fixture
def posted(images: natslease.Queue) -> list[dict[str, str]]:
    """Results for three tasks that were taken."""
    images.publish([b"0", b"1", b"2"])
    batch = images.reserve(3, wait=5)
    return [{"reply_subject": emit_lease(x), "text": f"of {x.data.decode()}"} for x in batch]


def test_results_are_saved_and_their_tasks_acknowledged(
    client: Client, images: natslease.Queue, posted: list[dict[str, str]]
) -> None:
    for item, answer in zip(posted, results(client, *posted), strict=True):
        assert answer["reply_subject"] == item["reply_subject"]
        assert answer["status"] == "queued"
        assert answer["task_id"]
    assert [r.text for r in Result.objects.order_by("pk")] == ["of 0", "of 1", "of 2"]
    assert images.info().messages == 0


def test_posting_the_same_again_is_harmless(client: Client, posted: list[dict[str, str]]) -> None:
    results(client, *posted[:2])
    answers = results(client, *posted, posted[2])
    assert [a["status"] for a in answers] == ["duplicate", "duplicate", "queued", "duplicate"]
    assert Result.objects.count() == 3


def test_one_bad_item_does_not_lose_the_good_ones(
    client: Client, images: natslease.Queue, posted: list[dict[str, str]]
) -> None:
    subject = "$JS.ACK.job_8.job_8.1.17.39.1795000000123456789.4"
    bad: list[Any] = [
        {"reply_subject": posted[0]["reply_subject"] + "A", "text": "forged"},
        {"reply_subject": emit_lease(LeaseRef(subject)), "text": "of another queue"},
        {"reply_subject": subject, "text": "raw"},
        {"reply_subject": "$JS.API.STREAM.PURGE.images", "text": "a command"},
        {"reply_subject": "images", "text": "a poison task"},
        {"reply_subject": posted[1]["reply_subject"], "text": "x" * 101},
        {"reply_subject": posted[1]["reply_subject"]},
        {"reply_subject": posted[1]["reply_subject"], "text": "unwanted"},
        {"text": "without a lease"},
        {"reply_subject": None, "text": ""},
        {"reply_subject": "A" * 100_000, "text": "huge"},
        {},
        [],
        "text",
        17,
        None,
    ]
    answers = results(client, bad[0], posted[0], *bad[1:], posted[1], posted[2])
    assert [a["status"] for a in answers] == [
        "invalid",
        "queued",
        *["invalid"] * (len(bad) - 1),
        "queued",
        "queued",
    ]
    assert all(a["error"] for a in answers if a["status"] == "invalid")
    assert answers[3]["reply_subject"] == subject
    assert Result.objects.count() == 3
    assert images.info().messages == 0


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        '"results"',
        "17",
        "null",
        '{"results": {}}',
        '{"results": null}',
        "{}",
        b"\xff",
    ],
)
def test_bodies_that_make_no_sense(client: Client, images: natslease.Queue, body: Any) -> None:
    answer = post(client, body)
    assert answer.status_code == 400
    assert InboxEntry.objects.count() == 0


def test_more_results_than_there_may_be(
    client: Client, site: Any, images: natslease.Queue, posted: list[dict[str, str]]
) -> None:
    site.NATSLEASE_HTTP = {"MAX_RESULTS": 2}
    assert post(client, {"results": posted}).status_code == 400
    assert Result.objects.count() == 0
    assert [a["status"] for a in results(client, *posted[:2])] == ["queued", "queued"]


def test_no_results(client: Client, images: natslease.Queue) -> None:
    assert results(client) == []


def test_raw_ack_subjects_where_they_are_accepted(
    client: Client, images: natslease.Queue, site: Any
) -> None:
    site.NATSLEASE_HTTP = {"ACCEPT_LEASES": ["raw", "signed"], "EMIT_LEASES": "raw"}
    images.publish([b"x"])
    (task,) = client.get("/api/queues/images/tasks").json()["tasks"]
    assert task["reply_subject"].startswith("$JS.ACK.images.images.1.")
    (answer,) = results(client, {"reply_subject": task["reply_subject"], "text": "x"})
    assert answer["status"] == "queued"
    assert images.info().messages == 0
