"""Reading ack subjects."""

from __future__ import annotations

from . import _wire
from ._native import native
from ._types import AckSubject


def parse_ack_subject(subject: str) -> AckSubject:
    """Reads an ack subject; nothing is sent.

    Accepted is only what a server writes. That it was written by one, and to whom, is not known:
    anybody can make such a text up.

    Raises:
        InvalidLease: it is no ack subject.
        TypeError: it is no str.
    """
    if not isinstance(subject, str):
        raise TypeError(f"subject: is {type(subject).__name__}: give an ack subject (str)")
    here = native()
    answer = here.parse_ack_subject(_wire.encode_text(subject))
    if answer[0] == _wire.ERROR:
        raise _wire.read_error(answer)
    return AckSubject(**_wire.read_value(answer))
