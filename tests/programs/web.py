"""Requests to the web servers among these programs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

from program import PATIENCE, Program
from work import Done, pids

# More than the servers have workers, so that none is without.
AT_ONCE = 12


def address(server: Program, text: str) -> str:
    """Where it listens, when it has said so."""
    found = re.search(rf"{text} (http://[\d.:]+)", server.await_output(text))
    assert found
    return found[1]


def ask(url: str) -> Done:
    """A request. Not one may fail."""
    with urlopen(url, timeout=PATIENCE) as response:
        done: Done = json.load(response)
        return done


def ask_again(url: str) -> Done:
    """A request to uvicorn, which closes what it has accepted and not read when it is replaced."""
    try:
        return ask(url)
    except ConnectionResetError:
        return ask_again(url)


def ask_until(
    url: str, enough: Callable[[set[int]], bool], ask: Callable[[str], Done] = ask
) -> list[Done]:
    """Asks, many at once, until the processes of the latest answers are enough."""
    deadline = time.monotonic() + PATIENCE
    done: list[Done] = []
    with ThreadPoolExecutor(AT_ONCE) as threads:
        while True:
            wave = list(threads.map(ask, [url] * AT_ONCE))
            done += wave
            if enough(pids(wave)):
                return done
            assert time.monotonic() < deadline, f"answers are from {pids(wave)} only"
