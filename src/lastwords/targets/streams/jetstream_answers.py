"""What the answers of JetStream mean. Pure.

==========================================  =======================================================================
an acknowledgement, ``duplicate`` or not    accepted
10071, 10164 wrong last sequence            somebody wrote meanwhile, we ourselves perhaps: ask what is there
10199 too many in one batch                 halve it
10054 too large                             rejected
503, 10077 the stream is full, other 5xx    later: no leader, no quorum, no room, or the stream was just removed
anything else                               a failure that buries nothing: the stream is not there, or not as it must be
==========================================  =======================================================================

After each of them but the first two it is asked anew what the stream can do.
"""

from __future__ import annotations

from typing import Any

from ...errors import Rejected, TryAgain
from ..wording import one_line

WRONG_LAST = frozenset({10071, 10164})
NO_MESSAGE = 10037
NO_STREAM = 10059
BATCH_TOO_LARGE = 10199
_TOO_LARGE = 10054
_FULL = frozenset({10002, 10023, 10028, 10047, 10077, 10110, 10122})  # no room, or too much on its way
_BROKEN_BATCH = frozenset({10175, 10176})  # a leader that changed in the middle of it


def code_of(answer: dict[str, Any]) -> int:
    """The error's number; 0 if there is none."""
    error = answer.get("error")
    return int(error.get("err_code") or error.get("code") or -1) if error else 0


def complaint(answer: dict[str, Any], label: str) -> Exception:
    """What to raise for an error that nothing can be done about here."""
    error = answer["error"]
    code, status = code_of(answer), int(error.get("code") or 0)
    words = f"{label}: {one_line(str(error.get('description', '')), 300)} (JetStream {code})"
    if code == 503:
        return ConnectionError(f"{label}: no server answers: JetStream is off, the stream is gone, or has no leader")
    if code == _TOO_LARGE:
        return Rejected(words)
    if code in _FULL or code in _BROKEN_BATCH or status >= 500:
        return TryAgain(words)
    return RuntimeError(words)


def matches(pattern: str, subject: str) -> bool:
    """True if a stream's subject takes ``subject``."""
    wanted, given = pattern.split("."), subject.split(".")
    for at, part in enumerate(wanted):
        if part == ">":
            return len(given) > at
        if at >= len(given) or (part != "*" and part != given[at]):
            return False
    return len(wanted) == len(given)
