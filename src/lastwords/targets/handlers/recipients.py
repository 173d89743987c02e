"""Which recipients have the mail of an entry, and which never will: shared by the handlers that send one mail a record.

Those who accepted never get the mail again (from this process; what is known of each entry does not outlive it). A
temporary refusal (4xx) is tried again for the others only; a permanent one (5xx), once all others have accepted, makes
the entry a dead letter that names the recipient, so that it is heard of. If all refuse for good, nobody has it: that is
a failure like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import Rejected, TryAgain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Replies = dict[str, tuple[int, bytes]]

MOST_REMEMBERED = 1000  # entries that some recipients have; those that are probed come between two tries of one entry


class _Progress:
    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.refused: Replies = {}


class Recipients:
    """By entry id: which recipients have it."""

    def __init__(self) -> None:
        self.progress: dict[str, _Progress] = {}

    def deliver(self, entry_id: str, recipients: Sequence[str], send: Callable[[list[str]], Replies]) -> None:
        """``send(wanted)`` to those who do not have it; it returns those that refused. Returns when all have it."""
        progress = self.progress.setdefault(entry_id, _Progress())
        if len(self.progress) > MOST_REMEMBERED:
            del self.progress[next(iter(self.progress))]
        wanted = [a for a in recipients if a not in progress.accepted and a not in progress.refused]
        later_: Replies = {}
        if wanted:
            replies = self._send(entry_id, progress, wanted, send)
            progress.accepted.update(a for a in wanted if a not in replies)
            progress.refused.update({a: reply for a, reply in replies.items() if reply[0] >= 500})
            later_ = {a: reply for a, reply in replies.items() if reply[0] < 500}
        if later_:
            raise TryAgain(f"refused for now by {_words(later_)}")
        self.progress.pop(entry_id, None)
        if progress.refused:
            others = f"; accepted by {', '.join(sorted(progress.accepted))}" if progress.accepted else ""
            raise Rejected(f"refused for good by {_words(progress.refused)}{others}")

    def _send(
        self, entry_id: str, progress: _Progress, wanted: list[str], send: Callable[[list[str]], Replies]
    ) -> Replies:
        import smtplib  # noqa: PLC0415 - with email and ssl behind it, 30 ms

        try:
            return send(wanted)
        except smtplib.SMTPRecipientsRefused as error:  # all of them
            if not progress.accepted and all(reply[0] >= 500 for reply in error.recipients.values()):
                self.progress.pop(entry_id, None)  # nobody has it: the next try is for all recipients
                raise
            return error.recipients


def _words(replies: Replies) -> str:
    return ", ".join(
        f"{address} ({code} {text.decode('utf-8', 'replace')})" for address, (code, text) in replies.items()
    )
