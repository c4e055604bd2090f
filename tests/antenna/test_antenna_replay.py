"""The figures of the replayed incident: how they are made, and that the page shows those recorded.

The replay itself is run by make test-demo, as short as it can be.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from replay.__main__ import harm
from replay.figures import DOCS, OUTAGES, figures, insert, quantile, table
from replay.half import Half


def half(**more: Any) -> Half:
    """Ten seconds of each phase, a poll a second that is answered at once."""
    names = ("healthy", "frozen", "after frozen", "slow", "after slow", "killed", "after killed")
    phases = [(name, 10.0 * i, 10.0 * (i + 1)) for i, name in enumerate(names)]
    polls = [{"at": float(t), "took": 0.1, "status": "200", "ids": 0} for t in range(70)]
    looks = [{"at": float(t), "took": 0.01, "status": "200"} for t in range(70)]
    made = Half(
        "after", "SQLite", phases, looks, polls, [{"at": 15.0, "threads": 7, "database": 2}]
    )
    made.stranded = {"frozen": 0, "killed": 0}
    made.new_worker_got = 20
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_nobody_is_harmed_when_all_is_well() -> None:
    made = figures(half())
    assert harm(made) == []
    frozen = made["phases"]["frozen"]
    assert (frozen["threads"], frozen["database"], frozen["recovery_s"]) == (7, 2, 0.0)
    assert frozen["unrelated"] == {
        "requests": 10,
        "failed": 0,
        "statuses": {"200": 10},
        "p50_ms": 10.0,
        "p99_ms": 10.0,
        "max_ms": 10.0,
    }
    assert "| unrelated requests " in table(None, made)
    assert "20 of 20" in table(made, made)


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        ({"monitor": [{"at": 12.0, "took": 1.0, "status": "500"}]}, "1 unrelated requests failed"),
        ({"polls": [{"at": 52.0, "took": 5.0, "status": "ReadTimeout", "ids": 0}]}, "ReadTimeout"),
        ({"stranded": {"frozen": 3, "killed": 0}}, "3 tasks were stranded"),
        ({"new_worker_got": 19}, "19 of 20"),
    ],
)
def test_harm_is_told(broken: dict[str, Any], text: str) -> None:
    (problem,) = harm(figures(half(**broken)))
    assert text in problem


def test_recovery_ends_with_the_last_request_that_suffered() -> None:
    made = half()
    made.polls.append({"at": 18.0, "took": 6.0, "status": "503", "ids": 0})  # ends at 24
    made.polls.append({"at": 21.0, "took": 8.0, "status": "409", "ids": 0})  # is no outage
    assert figures(made)["phases"]["frozen"]["recovery_s"] == 4.0
    made.polls.append({"at": 19.0, "took": 30.0, "status": "ReadTimeout", "ids": 0})
    assert figures(made)["phases"]["frozen"]["recovery_s"] is None


def test_one_refused_request_among_many_is_no_outage() -> None:
    made = half()
    made.polls += [{"at": 24.0, "took": 0.5, "status": "200", "ids": 0} for _ in range(20)]
    made.polls.append({"at": 24.4, "took": 0.1, "status": "503", "ids": 0})
    assert figures(made)["phases"]["frozen"]["recovery_s"] == 0.0


def test_quantiles() -> None:
    assert quantile([], 0.99) == 0
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([float(i) for i in range(100)], 0.99) == 99.0


def test_a_text_is_put_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x: by make -->\nold\n<!-- /x -->\nb\n")
    insert(page, "x", "new\n")
    assert page.read_text() == "a\n<!-- x: by make -->\nnew\n<!-- /x -->\nb\n"
    with pytest.raises(ValueError, match="no marks of y"):
        insert(page, "y", "")


def test_the_page_shows_the_recorded_figures() -> None:
    recorded = json.loads((DOCS / "incident.json").read_text())
    page = (DOCS / "incident.md").read_text()
    assert table(recorded["before"], recorded["after"]) in page
    assert recorded["machine"]["date"] in page
    assert (DOCS / "incident.png").stat().st_size > 10_000
    # What the page is for.
    assert sum(recorded["after"]["stranded"].values()) == 0
    assert recorded["after"]["new_worker_got"] == 20
    for outage in OUTAGES:
        assert recorded["after"]["phases"][outage]["unrelated"]["failed"] == 0
    assert recorded["before"]["new_worker_got"] < 20
    assert sum(recorded["before"]["stranded"].values()) > 0
