"""The page for staff, in a browser: light, dark, on a phone, during an outage; and what it does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect

import natslease
from natslease.fleet import Fleet, Identity
from natslease.testing import Server
from program import PATIENCE, Program

ROOT = Path(__file__).resolve().parents[2]
WIDE = {"width": 1100, "height": 620}
PHONE = {"width": 390, "height": 844}

_LOGIN = """
import django
django.setup()
from django.contrib.auth.models import User
from django.test import Client
client = Client()
client.force_login(User.objects.create_user("ann", is_staff=True))
print(client.cookies["sessionid"].value)
"""


class Staff(NamedTuple):
    """The site, and what somebody of the staff has."""

    url: str
    session: str

    def open(self, page: Page) -> None:
        """Opens the page as somebody of the staff."""
        page.context.add_cookies([{"name": "sessionid", "value": self.session, "url": self.url}])
        page.goto(f"{self.url}/queues/")
        expect(page.locator("#processes tbody tr")).to_have_count(1)


@pytest.fixture
def queue(nats_server: Server) -> natslease.Queue:
    """A queue that has had a life; there are others, and workers, too."""
    client = natslease.Client(nats_server.url)
    made = {}
    for name, tasks in (("job_1365", 230), ("job_1366", 2400), ("job_1371", 0)):
        queue = client.queue(name, max_deliver=1, dead_letters="dead")
        queue.ensure()
        queue.publish([b"{}"] * tasks)
        made[name] = queue
    queue = made["job_1365"]
    queue.nak(queue.reserve(3, wait=5), reason="no luck")
    fleet = Fleet(client)
    worker = fleet.register(Identity("adc", host="gpu-1", slot="0"))
    leases = queue.reserve(16, wait=5)
    fleet.record("reserve", worker.worker, leases, epoch=worker.epoch)
    fleet.flush()
    return queue


@pytest.fixture
def staff(nats_server: Server, queue: natslease.Queue, tmp_path: Path) -> Iterator[Staff]:
    """The site under gunicorn."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "testsite.settings",
        "PYTHONPATH": f"{ROOT / 'tests/django'}:{ROOT / 'python'}",
        "SITE_DATABASE": str(tmp_path / "site.sqlite3"),
        "SITE_DEAD_LETTERS": "dead",
        "SITE_NATS_URL": nats_server.url,
    }
    everything = {**os.environ, **environment}
    python = [sys.executable, "-m", "django", "migrate", "--verbosity=0"]
    subprocess.run(python, env=everything, check=True, timeout=PATIENCE)
    session = subprocess.run(
        [sys.executable, "-c", _LOGIN],
        env=everything,
        check=True,
        timeout=PATIENCE,
        capture_output=True,
        text=True,
    ).stdout.strip()
    command = ["gunicorn", "--bind=127.0.0.1:0", "--threads=8", "testsite.wsgi:app"]
    with Program(*command, env=environment) as server:
        found = re.search(r"Listening at: (http://[\d.:]+)", server.await_output("Booting worker"))
        assert found
        yield Staff(found[1], session)


@pytest.fixture
def pages(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages of browsers with these options."""
    contexts = []

    def new(**options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        return context.new_page()

    yield new
    for context in contexts:
        context.close()


def row(page: Page, table: str, name: str) -> Any:
    return page.locator(f"#{table} tbody tr").filter(has_text=name)


def overflows(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


def test_it_shows_what_there_is_and_goes_on_by_itself(
    page: Page, staff: Staff, queue: natslease.Queue
) -> None:
    staff.open(page)
    cells = row(page, "queues", "job_1365").locator("td")
    expect(cells.nth(1)).to_have_text("211")
    expect(cells.nth(2)).to_have_text("16")
    expect(cells.nth(4)).to_have_text("3")
    expect(row(page, "workers", "adc@gpu-1/0")).to_contain_text("16 of job_1365")
    expect(row(page, "processes", "closed")).to_contain_text("0 of 4")
    queue.publish([b"{}"] * 100)
    expect(cells.nth(1)).to_have_text("311")  # without reloading
    expect(cells.nth(6)).not_to_have_text("0.0")
    page.locator("input[name=pattern]").fill("*66")
    expect(page.locator("#queues tbody tr")).to_have_count(1)


def test_nothing_is_done_before_it_is_confirmed(
    page: Page, staff: Staff, queue: natslease.Queue
) -> None:
    staff.open(page)
    asked = page.locator("#confirm")
    row(page, "queues", "job_1365").get_by_role("button", name="Purge").click()
    expect(asked).to_contain_text("Delete all 227 tasks of job_1365")
    asked.get_by_role("button", name="Cancel").click()
    row(page, "queues", "job_1365").get_by_role("button", name="Purge").click()
    page.keyboard.press("Escape")
    expect(asked).to_be_hidden()
    assert queue.info().messages == 227

    row(page, "queues", "job_1365").get_by_role("button", name="Requeue").click()
    asked.get_by_role("button", name="Requeue").click()
    expect(page.locator("#done")).to_have_text("3 tasks of job_1365 requeued")
    row(page, "queues", "job_1365").get_by_role("button", name="Purge").click()
    asked.get_by_role("button", name="Purge").click()
    expect(page.locator("#done")).to_have_text("230 tasks of job_1365 deleted")
    expect(row(page, "queues", "job_1365").locator("td").nth(1)).to_have_text("0")
    row(page, "workers", "adc@gpu-1/0").get_by_role("button", name="Stop").click()
    asked.get_by_role("button", name="Stop").click()
    expect(row(page, "workers", "adc@gpu-1/0")).to_contain_text("stopped")


def test_an_outage_is_told_and_passes(page: Page, staff: Staff, nats_server: Server) -> None:
    staff.open(page)
    nats_server.stop()
    error = page.locator("#error")
    expect(error).to_contain_text("temporarily unavailable", timeout=PATIENCE * 1000)
    expect(row(page, "processes", "open")).to_have_count(1, timeout=PATIENCE * 1000)
    assert row(page, "queues", "job_1365").count() == 1  # what was last known stays
    nats_server.start()
    expect(error).to_be_hidden(timeout=PATIENCE * 1000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_light_and_dark_wide_and_narrow(
    pages: Callable[..., Page], staff: Staff, size: dict[str, int], scheme: str
) -> None:
    page = pages(viewport=size, color_scheme=scheme)
    staff.open(page)
    expect(row(page, "queues", "job_1365")).to_be_visible()
    assert not overflows(page)
    back, text = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    brightness = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (back, text)]
    assert abs(brightness[0] - brightness[1]) > 500
    assert (brightness[0] > brightness[1]) == (scheme == "light")
    heading = page.locator("#queues thead")
    assert heading.is_visible() == (size is WIDE)
    if folder := os.environ.get("NATSLEASE_SCREENSHOTS"):
        kind = f"{'wide' if size is WIDE else 'phone'}-{scheme}"
        expect(row(page, "queues", "job_1365").locator("td").nth(6)).to_have_text("0.0")
        page.screenshot(path=f"{folder}/staff-page-{kind}.png", full_page=True)


def test_others_are_sent_to_the_login(page: Page, staff: Staff) -> None:
    answer = page.request.get(f"{staff.url}/queues/", max_redirects=0)
    assert answer.status == 302
    assert page.request.get(f"{staff.url}/queues/data/").status == 403
