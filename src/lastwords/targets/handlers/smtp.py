"""SMTPHandler: every recipient took the mail, or we hear who did not.

stdlib's ``emit`` ignores what ``send_message`` returns: the recipients that were refused while others accepted. So a
handler that does not override ``emit`` is driven here, step by step as stdlib does it, from the handler's attributes
(``getSubject`` and ``format`` may be overridden). One that does is called as it is, with a warning if it has several
recipients.

When some accepted and others did not: those who accepted never get the mail again (from this process; what it knows
of each entry does not outlive it). A temporary refusal (4xx) is tried again for the others only; a permanent one (5xx),
once all others have accepted, makes the entry a dead letter that names the recipient, so that it is heard of. If all
refuse for good, nobody has it: that is a failure like any other.

``Message-ID`` and ``X-Lastwords-Id`` are made from the entry's id: the same mail twice can be recognised.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...errors import Rejected, TryAgain
from .wrap import HandlerTarget

if TYPE_CHECKING:
    import logging.handlers
    import smtplib
    from email.message import EmailMessage

    from ...record.codec import Entry

Replies = dict[str, tuple[int, bytes]]

MOST_REMEMBERED = 1000  # entries that some recipients have; those that are probed come between two tries of one entry


class _Progress:
    """Who has the mail of an entry, and who never will."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.refused: Replies = {}


class SMTPTarget(HandlerTarget):
    """Accepted: the server took the mail for every recipient."""

    rebuild_helps = False  # each mail has a connection of its own; a new handler would not know who has it already

    def __init__(self, handler: logging.handlers.SMTPHandler) -> None:
        super().__init__(handler)
        if not self.drives and len(self._recipients()) > 1:
            self.warnings += (
                f"{type(handler).__name__} overrides emit(): one refused recipient among several cannot be noticed",
            )
        self._progress: dict[str, _Progress] = {}

    def describe(self) -> str:
        handler = self.handler
        port = f":{handler.mailport}" if handler.mailport else ""
        return f"{type(handler).__name__} {handler.mailhost}{port} to {', '.join(handler.toaddrs)}"

    def emit(self, entry: Entry) -> None:
        if self.drives:
            self._send(entry)
        else:
            super().emit(entry)

    def _send(self, entry: Entry) -> None:
        progress = self._progress.setdefault(entry.id, _Progress())
        if len(self._progress) > MOST_REMEMBERED:
            del self._progress[next(iter(self._progress))]
        wanted = [a for a in self._recipients() if a not in progress.accepted and a not in progress.refused]
        later: Replies = {}
        if wanted:
            replies = self._send_to(entry, wanted, progress)
            progress.accepted.update(a for a in wanted if a not in replies)
            progress.refused.update({a: reply for a, reply in replies.items() if reply[0] >= 500})
            later = {a: reply for a, reply in replies.items() if reply[0] < 500}
        if later:
            raise TryAgain(f"refused for now by {_words(later)}")
        self._progress.pop(entry.id, None)
        if progress.refused:
            others = f"; accepted by {', '.join(sorted(progress.accepted))}" if progress.accepted else ""
            raise Rejected(f"refused for good by {_words(progress.refused)}{others}")

    def _recipients(self) -> list[str]:
        """The addresses, as smtplib would read them from the header: several may be in one string."""
        import email.utils  # noqa: PLC0415

        given = self.handler.toaddrs
        parsed = [address for _, address in email.utils.getaddresses([",".join(given)]) if address]
        return list(dict.fromkeys(parsed or given))

    def _send_to(self, entry: Entry, wanted: list[str], progress: _Progress) -> Replies:
        """Those of ``wanted`` that did not take the mail, and what the server said."""
        import smtplib  # noqa: PLC0415 - with email and ssl behind it, 30 ms

        message = self._compose(entry)
        smtp = self._connect()
        try:
            replies: Replies = smtp.send_message(message, to_addrs=wanted)
        except smtplib.SMTPRecipientsRefused as error:  # all of them
            if not progress.accepted and all(reply[0] >= 500 for reply in error.recipients.values()):
                self._progress.pop(entry.id, None)  # nobody has it: the next try is for all recipients
                raise
            return error.recipients
        finally:
            # The mail was accepted or not before this; a failing QUIT changes nothing.
            with suppress(OSError):
                smtp.quit()
        return replies

    def _connect(self) -> smtplib.SMTP:
        import smtplib  # noqa: PLC0415

        handler = self.handler
        smtp = smtplib.SMTP(handler.mailhost, handler.mailport or smtplib.SMTP_PORT, timeout=handler.timeout)
        try:
            if handler.username:
                if handler.secure is not None:
                    self._start_tls(smtp)
                smtp.login(handler.username, handler.password)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _start_tls(self, smtp: smtplib.SMTP) -> None:
        import ssl  # noqa: PLC0415

        # As in stdlib's emit: () or (keyfile,) or (keyfile, certfile); newer Pythons make a context of them.
        secure: Any = self.handler.secure
        keyfile = secure[0] if len(secure) > 0 else None
        certfile = secure[1] if len(secure) > 1 else None
        context = ssl._create_stdlib_context(certfile=certfile, keyfile=keyfile)  # type: ignore[attr-defined]
        smtp.ehlo()
        smtp.starttls(context=context)
        smtp.ehlo()

    def _compose(self, entry: Entry) -> EmailMessage:
        import email.utils  # noqa: PLC0415
        from email.message import EmailMessage  # noqa: PLC0415

        handler, record = self.handler, entry.record
        message = EmailMessage()
        message["From"] = handler.fromaddr
        message["To"] = ",".join(handler.toaddrs)
        message["Subject"] = " ".join(handler.getSubject(record).splitlines())
        message["Date"] = email.utils.localtime()
        message["Message-ID"] = (
            f"<{entry.id}@{email.utils.parseaddr(handler.fromaddr)[1].rpartition('@')[2] or 'lastwords'}>"
        )
        message["X-Lastwords-Id"] = entry.id
        message.set_content(handler.format(record))
        return message


def _words(replies: Replies) -> str:
    return ", ".join(
        f"{address} ({code} {text.decode('utf-8', 'replace')})" for address, (code, text) in replies.items()
    )
