"""Holds a run to what is promised."""

from __future__ import annotations

import re
from collections import Counter

from expectations import expected, named
from harness import Call, Run

# Promise 1: what is allowed beyond the lateness of a sleeper beside the calls, in seconds.
MAX_LATENESS = 0.25
MAX_LATENESS_P999 = 0.05
# What may be more after many more calls: a dial under way, the last connection being closed.
_MORE_GOROUTINES = 8
_MORE_DESCRIPTORS = 8
_MORE_MEMORY = 24 << 20
# What the client had to send when nobody read any more is garbage for a while, next to what it has
# to send now.
_MORE_OF_FULL_BUFFERS = 24 << 20
# Of the explanations that are about the fault; a call may fail of another's consequences.
_NAMED = 0.9
# A process that gets no processor for so long may not even have sent what it was asked to.
_STARVED = 0.1
_SECONDS = re.compile(r"\d+\.\d+ s")


def problems(run: Run, *, short: bool) -> list[str]:
    """What is not as it should be."""
    found = []
    wrong: Counter[tuple[str, str]] = Counter(
        (call.operation, call.verdict)
        for call in run.calls
        if call.verdict not in expected(run.fault, call.operation)
        and not (call.control > _STARVED and call.verdict == "DeadlineExceeded/not_sent")
    )
    found += [f"{operation}: {n} x {verdict}" for (operation, verdict), n in wrong.items()]
    late = max(run.calls, key=lambda call: call.lateness)
    if late.lateness > MAX_LATENESS:
        found.append(f"{late.operation}: {late.lateness:.3f} s late, after {late.timeout:.3f} s")
    if not short and (p999 := percentile(run, 0.999)) > MAX_LATENESS_P999:
        found.append(f"p99.9 of the lateness is {p999:.3f} s")
    if not is_bounded(run, short=short):
        found.append(f"something grows: {run.before} to {run.after}")
    failed = [call for call in run.calls if call.explanation]
    found += run.contradictions
    if run.fault != "disk full" and len(failed) < len(run.calls) / 4:
        found.append(f"only {len(failed)} of {len(run.calls)} calls met the fault")
    if named_share(run) < _NAMED:
        other = next(call for call in failed if not is_named(run, call))
        found.append(f"the fault is named by {named_share(run):.0%} only: {other.explanation}")
    return [f"{run.fault}, {run.face}: {problem}" for problem in found]


def percentile(run: Run, share: float) -> float:
    late = sorted(call.lateness for call in run.calls)
    return late[min(int(len(late) * share), len(late) - 1)]


def is_bounded(run: Run, *, short: bool) -> bool:
    assert run.before is not None
    assert run.after is not None
    memory = _MORE_MEMORY
    if run.fault == "full socket buffer":
        memory += _MORE_OF_FULL_BUFFERS
    return (
        run.after.goroutines <= run.before.goroutines + _MORE_GOROUTINES
        and run.after.descriptors <= run.before.descriptors + _MORE_DESCRIPTORS
        and (short or run.after.memory <= run.before.memory + memory)
    )


def is_named(run: Run, call: Call) -> bool:
    text = call.explanation
    # What the server has answered needs no times: it is the fault.
    told = "what happened:" not in text or _SECONDS.search(text)
    return bool(re.search(named(run.fault), text) and told)


def named_share(run: Run) -> float:
    """How many of the explanations name the fault, with times."""
    told = [is_named(run, call) for call in run.calls if call.explanation]
    return sum(told) / len(told) if told else 1.0
