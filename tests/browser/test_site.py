"""The documentation's site, as `make docs` builds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

BUILT = Path(__file__).resolve().parents[2] / "build" / "site" / "html"


@pytest.fixture
def site(serve: Callable[[Path], str]) -> str:
    """Where the site is."""
    return serve(BUILT)


def test_pages_lead_to_each_other(page: Page, site: str) -> None:
    page.goto(site)
    expect(page.locator("h1")).to_contain_text("natslease")
    navigation = page.get_by_role("navigation", name="Navigation").first
    for link, heading in (
        ("From nothing to a queue in five minutes", "From nothing to a queue"),
        ("Fork, gunicorn and Celery", "Fork, gunicorn and Celery"),
        ("Delivery guarantees", "Delivery guarantees"),
    ):
        navigation.get_by_role("link", name=link).click()
        expect(page.locator("h1")).to_contain_text(heading)
    page.get_by_role("link", name='What "acked" means').last.click()
    expect(page.locator("h2#how-far-the-servers-word-reaches")).to_be_visible()


def test_references_are_complete(page: Page, site: str) -> None:
    page.goto(f"{site}/reference/python/natslease/")
    for name in ("Client", "Queue.reserve", "Lease.ack", "AsyncQueue.consume", "CircuitOpen"):
        expect(page.locator(f"[id='natslease.{name}']").first).to_be_attached()
    expect(page.get_by_text("up to n tasks").first).to_be_visible()
    page.goto(f"{site}/reference/go/core/")
    for name in ("Client", "Queue-Reserve", "Lease-Ack", "Error"):
        expect(page.locator(f"[id='{name}']")).to_be_visible()


def test_search_finds(page: Page, site: str) -> None:
    page.goto(site)
    page.get_by_placeholder("Search").first.click()
    page.get_by_placeholder("Search").first.fill("prefork")
    result = page.get_by_role("link", name="Fork, gunicorn and Celery").first
    expect(result).to_be_visible()


def test_markers_of_tests_are_not_shown(page: Page, site: str) -> None:
    page.goto(f"{site}/howto/fork/")
    assert "test:" not in page.content().split("<article", 1)[1].split("</article", 1)[0]


@pytest.mark.parametrize("name", ["incident", "peers"])
def test_pictures_are_shown(page: Page, site: str, name: str) -> None:
    page.goto(f"{site}/explanation/{name}/")
    picture = page.locator("article img").first
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 500
