"""The answer to a mail: RFC 5321 (4.5.3.2.6) wants a client to wait ten minutes for it after the end of the data.

A server that filters mail while the client waits takes its time, and it has the mail: a client that gives up too
early sends it again. So, whatever the timeout of the other steps is, that answer is waited for as long as the RFC
says. If it never comes, nobody knows whether the mail arrived. Then it is sent again, because it must not be lost, but
not at each retry: soon once, in case the server was just restarted, then after a minute, after ten, and then twice as
long each time, a day at most. ``delivery.restraint`` counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import smtplib

ANSWER_SECONDS = 600.0
LONGEST_SECONDS = 86400.0
FIRST_SECONDS = (5.0, 60.0)
GO_AHEAD = 354  # the reply to DATA: what follows is the mail


class Unanswered(ConnectionError):  # noqa: N818 - reads as what happened
    """A mail was handed over, and the server did not say whether it took it."""


def waits_for_the_answer(smtp: smtplib.SMTP) -> None:
    """Make ``smtp`` wait as the RFC says; :class:`Unanswered` if the answer to a mail does not come."""
    import smtplib  # noqa: PLC0415 - with email and ssl behind it, 30 ms

    plain = smtp.getreply
    handed_over = False

    def getreply() -> tuple[int, bytes]:
        nonlocal handed_over
        sock: Any = smtp.sock
        before = sock.gettimeout() if sock is not None else None
        if handed_over and sock is not None:
            sock.settimeout(ANSWER_SECONDS if before is None else max(before, ANSWER_SECONDS))
        try:
            reply = plain()
        except (smtplib.SMTPServerDisconnected, OSError) as error:
            if handed_over:
                raise Unanswered(f"the mail was handed over, and not answered; perhaps it arrived: {error}") from error
            raise
        if handed_over and smtp.sock is not None:
            sock.settimeout(before)
        handed_over = reply[0] == GO_AHEAD
        return reply

    smtp.getreply = getreply  # type: ignore[method-assign]


def pause_after(times: int) -> float:
    """Seconds until a mail is sent again that was handed over ``times`` times without an answer."""
    first = len(FIRST_SECONDS)
    if times <= first:
        return FIRST_SECONDS[max(0, times - 1)]
    return min(LONGEST_SECONDS, ANSWER_SECONDS * 2.0 ** min(times - first - 1, 20))
