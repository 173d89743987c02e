"""Handing one mail to one server, and hearing what every recipient's server said.

TLS: ``smtps`` from the first byte, or STARTTLS: "required" (verified; the default when there are credentials),
"if-offered" (encrypted if the server can, unverified as between mail servers, RFC 7435; the default without
credentials), "never". Credentials are sent over TLS only, unless STARTTLS was switched off by the user's own hand.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ..mail_answer import Unanswered, waits_for_the_answer
from ..urls.tls import opportunistic, verifying
from ..wording import one_line

if TYPE_CHECKING:
    import smtplib
    import ssl
    from collections.abc import Iterable, Sequence
    from email.message import EmailMessage

    from ..urls.secret import Credentials

PORTS = {"smtp": 25, "smtps": 465}
STARTTLS = ("required", "if-offered", "never")


class Reply(NamedTuple):
    """What a server said."""

    code: int
    text: str

    @property
    def is_final(self) -> bool:
        """True if trying again changes nothing."""
        return self.code >= 500

    def __str__(self) -> str:
        return f"{self.code} {self.text}".rstrip()


class Refused(Exception):  # noqa: N818 - reads as what happened
    """No recipient got the mail. ``replies``: by recipient; ``whole``: the mail itself was refused, not a recipient."""

    def __init__(self, replies: dict[str, Reply], *, whole: bool = False) -> None:
        self.replies = replies
        self.whole = whole
        super().__init__(said(replies))


class Mailer:
    """Sends mails to one server, each over a connection of its own. Keeps no state between them."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        implicit_tls: bool = False,
        starttls: str | None = None,
        credentials: Credentials | None = None,
        timeout: float = 30.0,
        cafile: str | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._implicit = implicit_tls
        self._starttls = starttls or ("if-offered" if credentials is None else "required")
        self._credentials = credentials
        self._timeout = timeout
        self._cafile = cafile
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.label = f"{'smtps' if implicit_tls else 'smtp'}://{place}"

    def send(self, message: EmailMessage, sender: str, recipients: Sequence[str]) -> dict[str, Reply]:
        """Hand the mail over. Returns the recipients that were refused while others accepted.

        Raises Refused if nobody got it, Unanswered if the server has the mail and did not say whether it took it,
        ConnectionError or TimeoutError if it does not have it.
        """
        import smtplib  # noqa: PLC0415

        smtp = self._connect()
        waits_for_the_answer(smtp)
        try:
            refused = smtp.send_message(message, sender, list(recipients))
        except smtplib.SMTPRecipientsRefused as error:
            raise Refused(self._replies(error.recipients)) from None
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            reply = Reply(error.smtp_code, self._words(error.smtp_error))
            raise Refused(dict.fromkeys(recipients, reply), whole=True) from None
        except Unanswered as error:
            raise Unanswered(f"{self.label}: {self._scrub(one_line(str(error), 300))}") from None
        except (smtplib.SMTPException, OSError) as error:
            raise self._trouble(error) from None
        finally:
            _quit(smtp)
        return self._replies(refused)

    def _connect(self) -> smtplib.SMTP:
        import smtplib  # noqa: PLC0415

        smtp: smtplib.SMTP | None = None
        try:
            if self._implicit:
                context = verifying(self._cafile)
                smtp = smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout, context=context)
            else:
                smtp = smtplib.SMTP(self._host, self._port, timeout=self._timeout)
                self._start_tls(smtp)
            self._login(smtp)
        except (smtplib.SMTPException, OSError, UnicodeError) as error:
            if smtp is not None:
                smtp.close()
            raise self._trouble(error) from None
        return smtp

    def _start_tls(self, smtp: smtplib.SMTP) -> None:
        if self._starttls == "never":
            return
        smtp.ehlo_or_helo_if_needed()
        if smtp.has_extn("starttls"):
            smtp.starttls(context=self._context())
        elif self._starttls == "required" or self._credentials is not None:
            hint = "smtps://, ?starttls=never" + (" or ?credentials=none" if self._credentials is not None else "")
            raise ConnectionError(f"the server does not offer STARTTLS, which is required here; see {hint}")

    def _context(self) -> ssl.SSLContext:
        verify = self._starttls == "required" or self._cafile is not None or self._credentials is not None
        return verifying(self._cafile) if verify else opportunistic()

    def _login(self, smtp: smtplib.SMTP) -> None:
        if self._credentials is None:
            return
        import smtplib  # noqa: PLC0415

        try:
            smtp.login(self._credentials.username.reveal(), self._credentials.password.reveal())
        except smtplib.SMTPResponseException as error:
            raise ConnectionError(f"login refused: {error.smtp_code} {self._words(error.smtp_error)}") from None

    def _trouble(self, error: Exception) -> OSError:
        """The same in words, without what smtplib's exceptions and tracebacks may quote."""
        text = self._scrub(one_line(str(error) or type(error).__name__, 300))
        kind = TimeoutError if isinstance(error, TimeoutError) else ConnectionError
        return kind(f"{self.label}: {text}")

    def _replies(self, replies: dict[str, tuple[int, bytes]]) -> dict[str, Reply]:
        return {address: Reply(code, self._words(text)) for address, (code, text) in replies.items()}

    def _words(self, text: bytes | str) -> str:
        decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return self._scrub(one_line(" ".join(decoded.split()), 300))

    def _scrub(self, text: str) -> str:
        return text if self._credentials is None else self._credentials.scrub(text)


def _quit(smtp: smtplib.SMTP) -> None:
    # The mail was accepted or refused before this; a failing QUIT changes nothing.
    with suppress(Exception):
        smtp.quit()
    smtp.close()


def said(replies: dict[str, Reply]) -> str:
    """Replies in words, those that are the same for several recipients once."""
    by_reply: dict[Reply, list[str]] = {}
    for address, reply in replies.items():
        by_reply.setdefault(reply, []).append(address)
    return "; ".join(f"{_some(addresses)}: {reply}" for reply, addresses in by_reply.items())


def _some(addresses: Iterable[str], most: int = 5) -> str:
    listed = list(addresses)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
