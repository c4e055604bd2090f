"""The page about sizes shows what was measured; make sizing measures it.

The measurement itself is run by make test-sizing, as short as it can be.
"""

from __future__ import annotations

import re

import pytest

from sizing import FULL, Part, parts
from speaker import ROOT

PAGE = (ROOT / "docs" / "explanation" / "sizing.md").read_text()


@pytest.mark.parametrize("part", parts(FULL), ids=lambda part: part.name)
def test_each_table_has_what_is_measured(part: Part) -> None:
    mark = f"<!-- sizing-{part.name}: by make sizing -->"
    text = PAGE.partition(mark)[2].partition(f"<!-- /sizing-{part.name} -->")[0]
    lines = text.strip().splitlines()
    head, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert head[1:] == [part.heading(count) for count in part.counts]
    assert [cells[0] for cells in body] == list(part.rows)
    assert all(re.search(r"\d", cell) for cells in body for cell in cells[1:])


def test_the_page_says_where_it_was_measured() -> None:
    assert re.search(r"by make sizing -->\nMeasured on \d+ \w+ \d+: cpu .*, nats-server 2\.", PAGE)
