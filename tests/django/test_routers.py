"""URLs with and without a trailing slash."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import include, path, reverse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from natslease.contrib.drf import OptionalSlashRouter, OptionalSlashSimpleRouter


class Jobs(ViewSet):
    """Tells what was asked for."""

    def list(self, request: Request, **options: str) -> Response:
        return Response("list")

    def retrieve(self, request: Request, pk: str, **options: str) -> Response:
        return Response(pk)


router = OptionalSlashRouter()
router.register("jobs", Jobs, basename="job")
simple = OptionalSlashSimpleRouter()
simple.register("jobs", Jobs, basename="simple")
urlpatterns = [path("v2/", include(router.urls)), path("simple/", include(simple.urls))]


@pytest.fixture(autouse=True)
def _urls(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


@pytest.mark.parametrize("base", ["/v2", "/simple"])
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.django_db
def test_both_spellings(client: Client, base: str, slash: str) -> None:
    for url, expected in ((f"{base}/jobs{slash}", "list"), (f"{base}/jobs/17{slash}", "17")):
        answer: Any = client.get(url)
        assert (answer.status_code, answer.json()) == (200, expected)
    assert client.get(f"{base}/jobs/17//").status_code == 404


@pytest.mark.django_db
def test_formats_and_the_root(client: Client) -> None:
    assert client.get("/v2/jobs.json").status_code == 200
    assert client.get("/v2/jobs/17.json").status_code == 200
    root: Any = client.get("/v2/")
    assert root.json() == {"jobs": "http://testserver/v2/jobs/"}


def test_urls_that_are_made_have_the_slash() -> None:
    assert reverse("job-list") == "/v2/jobs/"
    assert reverse("job-detail", args=["17"]) == "/v2/jobs/17/"
    assert reverse("simple-detail", kwargs={"pk": "17"}) == "/simple/jobs/17/"
