"""SMTPHandler: every recipient took the mail, or we hear which did not.

stdlib's ``emit`` ignores what ``send_message`` returns: the recipients that were refused while others accepted. So a
handler that does not override ``emit`` is driven here, step by step as stdlib does it, from the handler's attributes
(``getSubject`` and ``format`` may be overridden). One that does is called as it is, with a warning if it has several
recipients.

What becomes of an entry that some recipients took and others refused: see ``recipients``.

``Message-ID`` and ``X-Lastwords-Id`` are made from the entry's id: the same mail twice can be recognised.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..mail_answer import waits_for_the_answer
from .recipients import Recipients
from .wrap import HandlerTarget

if TYPE_CHECKING:
    import logging.handlers
    import smtplib
    from email.message import EmailMessage

    from ...record.codec import Entry
    from .recipients import Replies


class SMTPTarget(HandlerTarget):
    """Accepted: the server took the mail for every recipient."""

    # Each mail has a connection of its own; a new handler would not know which recipients have it already.
    rebuild_helps = False

    def __init__(self, handler: logging.handlers.SMTPHandler) -> None:
        super().__init__(handler)
        if not self.drives and len(self._recipients()) > 1:
            self.warnings += (
                f"{type(handler).__name__} overrides emit(): one refused recipient among several cannot be noticed",
            )
        self._answers = Recipients()

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
        self._answers.deliver(entry.id, self._recipients(), lambda wanted: self._send_to(entry, wanted))

    def _recipients(self) -> list[str]:
        """The addresses, as smtplib would read them from the header: several may be in one string."""
        import email.utils  # noqa: PLC0415

        given = self.handler.toaddrs
        parsed = [address for _, address in email.utils.getaddresses([",".join(given)]) if address]
        return list(dict.fromkeys(parsed or given))

    def _send_to(self, entry: Entry, wanted: list[str]) -> Replies:
        """Those of ``wanted`` that did not take the mail, and what the server said."""
        message = self._compose(entry)
        smtp = self._connect()
        try:
            replies: Replies = smtp.send_message(message, to_addrs=wanted)
        finally:
            # The mail was accepted or not before this; a failing QUIT changes nothing.
            with suppress(OSError):
                smtp.quit()
        return replies

    def _connect(self) -> smtplib.SMTP:
        import smtplib  # noqa: PLC0415

        handler = self.handler
        smtp = smtplib.SMTP(handler.mailhost, handler.mailport or smtplib.SMTP_PORT, timeout=handler.timeout)
        waits_for_the_answer(smtp)
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
