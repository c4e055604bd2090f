"""How calls may end under each fault. Written before the first run, from what each error promises;
what runs have taught since is in the history of this file, with its reason.

``not_sent`` promises that nothing has reached the server, so it is the only outcome of a call that
found no connection, and never that of one that was written to a connection. What a server has
answered before the fault, or after it, is ``ok``.
"""

from __future__ import annotations

# There is no connection, and none comes to be.
UNCONNECTED = {"ConnectFailed/not_sent", "DeadlineExceeded/not_sent", "CircuitOpen/not_sent"}
# The call was written, and nothing came back: its time was over before the session's, or after.
UNANSWERED = {"DeadlineExceeded/unknown", "ConnectionLost/unknown"}
# The session died under the call. Of what is safe to do again a second try may have failed.
CUT = {
    "ok",
    "ConnectionLost/unknown",
    "ConnectFailed/unknown",
    "CircuitOpen/unknown",
    "DeadlineExceeded/unknown",
    "QueueUnavailable/unknown",
}
# The lease, or the letter, was settled by the first try, and the second has found that out; a
# queue that was deleted meanwhile by another of these calls is gone.
LATER = {"LeaseGone/rejected", "QueueNotFound/rejected", "LeaseExpired/rejected"}
# JetStream cannot write. 2.10 says so; 2.15 says it once and is then silent about the stream. On a
# machine with other work, either was seen to say nothing at all for more than a second, which ends
# the session as a frozen server does.
FULL = {
    "ok",
    "StorageFull/rejected",
    "QueueUnavailable/unknown",
    "QueueUnavailable/not_sent",
    "ServerError/rejected",
    *CUT,
}
# A client gives back what it holds, inside its timeout, and is closed in any case.
CLOSED = {"ok", "DeadlineExceeded/unknown"}
# What takes from several queues says of those that gave no answer that they are unavailable.
NO_ANSWER = {"QueueUnavailable/unknown"}
# The bytes that may wait unsent are bounded: what finds no room before its deadline was not sent.
NO_ROOM = {"DeadlineExceeded/not_sent"}

_BY_FAULT: dict[str, set[str]] = {
    "deaf port": UNCONNECTED,
    "INFO never sent": UNCONNECTED,
    "INFO broken off": UNCONNECTED,
    "CONNECT never answered": UNCONNECTED,
    "greeting one byte at a time": UNCONNECTED,
    "DNS hangs": UNCONNECTED,
    "TLS handshake stalls": UNCONNECTED,
    "frozen server": UNANSWERED,
    "black hole": UNANSWERED,
    # To who hears something, and no answer to a question, JetStream seems busy.
    "one byte at a time": {"ok", "DeadlineExceeded/unknown"} | NO_ANSWER,
    "reset in mid-message": CUT | LATER,
    "full socket buffer": UNANSWERED,
    "kill -9 and restart": CUT | LATER,
    "disk full": FULL | LATER,
}

# Whoever waits for the pull of another to end has not sent one of his own yet.
_TAKE = ("client.reserve_any", "queue.reserve", "queue.reserve, wait", "queue.consume")
WAITING = {"ConnectionLost/not_sent"}

# What is wanted besides of single operations.
_BY_OPERATION: dict[tuple[str, str], set[str]] = {
    ("frozen server", "client.reserve_any"): UNANSWERED | NO_ANSWER,
    ("black hole", "client.reserve_any"): UNANSWERED | NO_ANSWER,
    ("full socket buffer", "client.reserve_any"): UNANSWERED | NO_ANSWER,
    # Letters are read before anything is sent that changes something.
    ("disk full", "queue.requeue"): FULL | LATER | NO_ROOM,
    ("disk full", "queue.discard"): FULL | LATER | NO_ROOM,
    ("full socket buffer", "queue.publish"): UNANSWERED | NO_ROOM,
    ("full socket buffer", "queue.publish, 1 MB"): UNANSWERED | NO_ROOM,
    ("disk full", "client.ping"): {"ok"} | UNANSWERED,
    # A stream that cannot write may also leave a message without an answer.
    ("disk full", "queue.publish, 1 MB"): {"StorageFull/rejected"} | UNANSWERED | NO_ANSWER,
}

# Words by which an operator must find the fault in ``error.explain()`` of the calls that failed.
_NAMED: dict[str, str] = {
    "deaf port": "nobody has answered the TCP connection for",
    "INFO never sent": r"greeting \(INFO\) never came",
    "INFO broken off": r"greeting \(INFO\) broke off after \d+ bytes",
    "CONNECT never answered": r"has not answered CONNECT for",
    "greeting one byte at a time": "while it was being opened, the connection delivers drop by",
    "DNS hangs": "the name server has not answered for",
    "TLS handshake stalls": "the TLS handshake was begun .* and not completed",
    # The second try of a publish finds that the server does not greet.
    "frozen server": r"went silent: nothing was received|has been silent for|greeting \(INFO\)",
    "black hole": r"went silent: nothing was received|has been silent for|greeting \(INFO\)",
    "one byte at a time": "delivers drop by drop",
    # A short answer can have come whole by then: it was cut, but not in the middle of anything.
    "reset in mid-message": "cut from the other side",
    # Those who try again find that nothing of theirs is read there, either.
    "full socket buffer": r"does not read what is sent to it: \d+ bytes wait|not answered CONNECT",
    "kill -9 and restart": "cut from the other side|nothing listens at that address",
    # While its disk refuses, the server may also say nothing at all, not even PONG, for a second.
    "disk full": (
        "no room|no space left on device|cannot write to its disk|it is slow to answer this"
        "|went silent"
    ),
}


def expected(fault: str, operation: str) -> set[str]:
    """The verdicts that are right."""
    if operation == "client.close":
        return CLOSED
    verdicts = _BY_OPERATION.get((fault, operation), _BY_FAULT[fault])
    if operation in _TAKE and "ConnectionLost/unknown" in verdicts:
        return verdicts | WAITING
    return verdicts


def named(fault: str) -> str:
    """A pattern of what the explanation must say, with a time in seconds somewhere in it."""
    return _NAMED[fault]
