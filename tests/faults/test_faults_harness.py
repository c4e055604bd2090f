"""The harness sees what it is made to see. The runs are `make test-faults` and `make faults`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import natslease
from expectations import expected, named
from faults import FAULTS
from harness import Call, Run, Size, from_json, to_json
from judge import problems
from operations import LEASE_OPERATIONS, OPERATIONS, Verdict, public_operations, verdict
from table import line, page

_TOLD = "what happened: the server went silent: nothing was received for 1.100 s"


@pytest.fixture
def good() -> Run:
    """A run in which everything is as expected."""
    calls = [
        Call(name, 0.4, "DeadlineExceeded/unknown", 0.001, _TOLD)
        for name in (*OPERATIONS, *LEASE_OPERATIONS)
        for _ in range(4)
    ]
    return Run("frozen server", "sync", "2.15.2", calls, Size(6, 12, 1 << 20), Size(6, 12, 1 << 20))


def test_every_public_operation_is_called() -> None:
    called = {name.partition(",")[0] for name in (*OPERATIONS, *LEASE_OPERATIONS)}
    assert called == public_operations()


def test_something_is_expected_of_every_fault() -> None:
    for fault in FAULTS:
        assert named(fault)
        assert all(expected(fault, name) for name in (*OPERATIONS, *LEASE_OPERATIONS))


def test_a_good_run_has_no_problems(good: Run) -> None:
    assert problems(good, short=False) == []
    assert "100%" in line(good)
    assert "| `queue.ack` | D? |" in page([good], [])
    assert from_json(to_json(good)) == good


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"verdict": "DeadlineExceeded/not_sent"}, "client.ping: 1 x DeadlineExceeded/not_sent"),
        ({"verdict": "ok"}, "client.ping: 1 x ok"),
        ({"lateness": 0.3}, "client.ping: 0.300 s late"),
        ({"lateness": 0.06}, "p99.9 of the lateness is 0.060 s"),
    ],
)
def test_a_wrong_call_is_a_problem(good: Run, change: dict[str, Any], problem: str) -> None:
    good.calls[0] = replace(good.calls[0], **change)
    assert any(problem in text for text in problems(good, short=False))


@pytest.mark.parametrize(
    "size", [Size(60, 12, 1 << 20), Size(6, 60, 1 << 20), Size(6, 12, 60 << 20)]
)
def test_growth_is_a_problem(good: Run, size: Size) -> None:
    good.after = size
    (problem,) = problems(good, short=False)
    assert "something grows" in problem


def test_errors_that_do_not_name_the_fault_are_a_problem(good: Run) -> None:
    good.calls[:20] = [replace(call, explanation="it failed") for call in good.calls[:20]]
    (problem,) = problems(good, short=False)
    assert problem.endswith("it failed")


def test_a_run_in_which_nothing_fails_is_a_problem(good: Run) -> None:
    good.calls = [replace(call, explanation="") for call in good.calls]
    (problem,) = problems(good, short=False)
    assert "met the fault" in problem


def test_verdicts() -> None:
    lost = natslease.ConnectionLost("lost", outcome="unknown")
    settled = natslease.SettleResult(status="settled", late=False, error=None)
    unknown = natslease.SettleResult(status="unknown", late=False, error=lost)
    assert verdict([settled]) == verdict(1) == Verdict("ok")
    assert verdict([settled, unknown]).text == "ConnectionLost/unknown"
