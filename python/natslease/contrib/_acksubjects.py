"""The parts of an ack subject that has been checked already: ``natslease.parse_ack_subject`` is
for those that have not."""

from __future__ import annotations

STREAM, CONSUMER, ATTEMPT, SEQ, PUBLISHED = 2, 3, 4, 5, 7
_SHORT = 9  # how many parts there are without domain and account


def parts_of(ack_subject: str) -> list[str]:
    """Its parts, less domain and account, which only the longer of its two forms has."""
    parts = ack_subject.split(".")
    return parts if len(parts) == _SHORT else parts[:STREAM] + parts[STREAM + 2 :]
