"""The page that compares natslease with others shows what was recorded, and where facts are from.

The comparison itself is run by make test-peers, as short as it can be.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from peers.features import FEATURES, PEERS
from peers.page import PAGE, PICTURE, RECORDED, SPEEDS, faults, parts, speed, summary
from peers.rows import ROWS


@pytest.fixture
def recorded() -> dict[str, Any]:
    """The figures of the run that the page shows."""
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def test_the_page_shows_the_recorded_figures(recorded: dict[str, Any]) -> None:
    text = PAGE.read_text()
    for name, part in parts(recorded).items():
        assert part.strip() in text, f"{name}: python -m peers --page writes it again"
    assert PICTURE.stat().st_size > 10_000


def test_all_peers_were_measured(recorded: dict[str, Any]) -> None:
    assert list(recorded["speed"]) == list(ROWS)
    assert recorded["missing"] == {}
    for row in ROWS.values():
        expected = {what for what, *_ in SPEEDS}
        expected -= set() if row.batches else {"work off in batches"}
        expected -= set() if row.many else {"enqueue many"}
        expected -= set() if row.enqueues else {"enqueue", "enqueue many"}
        assert set(recorded["speed"][row.name]) == expected, row.name
    synchronous = [row.name for row in ROWS.values() if row.is_synchronous]
    assert list(recorded["blocked"]) == list(recorded["killed"]) == list(recorded["fork"])
    assert list(recorded["blocked"]) == synchronous == list(PEERS)


def test_what_natslease_promises_holds_in_the_recorded_faults(recorded: dict[str, Any]) -> None:
    for case, calls in recorded["blocked"]["natslease"].items():
        for timeout, call in calls.items():
            assert call["error"], f"{case}: it goes on"
            assert call["took"] < (int(timeout) or 5) + 1
    assert recorded["fork"]["natslease"] == "yes"
    lease = recorded["lease"]
    assert lease - 0.5 < recorded["killed"]["natslease"]["lease"] < lease + 2


def test_every_cell_says_where_that_is_written() -> None:
    for name, cells in FEATURES.items():
        assert list(cells) == list(PEERS), name
        for peer, (text, source) in cells.items():
            where = f"{name}, {peer}: {source}"
            assert text, where
            if source.startswith("https://"):
                assert peer != "natslease", where
            else:
                assert peer == "natslease", where
                assert (PAGE.parent / source).exists(), where


def test_ratios_are_to_natslease_called_in_the_same_way() -> None:
    def one(enqueue: float) -> dict[str, Any]:
        return {"enqueue": summary([enqueue]), "enqueue many": summary([1e6 / enqueue])}

    figures = {
        "natslease": one(100.0),
        "other": one(250.0),
        "natslease, in a loop": one(200.0),
        "other, in a loop": one(100.0),
    }
    for row in figures.values():
        row |= {what: summary([1.0]) for what, *_ in SPEEDS if what not in row}
    lines = speed({"speed": figures}).splitlines()
    assert lines[2].startswith("| **natslease** | 100 (100), 1x | 10,000, 1x |")
    assert lines[3].startswith("| other | 250 (250), 2.5x | 4,000, 0.4x |")
    assert lines[5].startswith("| other, in a loop | 100 (100), 0.5x | 10,000, 2x |")


def test_who_does_not_return_is_told_apart_from_who_raises_and_who_says_nothing() -> None:
    calls = [
        {"took": 32.0, "error": None},
        {"took": 2.04, "error": "TimeoutError"},
        {"took": 0.01, "error": ""},
    ]
    recorded = {
        "cases": ["a", "b", "c"],
        "timeout": 2,
        "lease": 5,
        "killed_cap": 75.0,
        "blocked": {
            "other": {case: {"0": call, "2": call} for case, call in zip("abc", calls, strict=True)}
        },
        "killed": {"other": {"default": None, "lease": 5.04}},
        "fork": {"other": "yes"},
    }
    cells = faults(recorded).splitlines()[2].split(" | ")
    assert cells[1:] == [
        "> 32 s (> 32 s)",
        "2.0 s (2.0 s)",
        "< 0.05 s, no error (< 0.05 s, no error)",
        "not in 75 s (5.0 s)",
        "yes |",
    ]
