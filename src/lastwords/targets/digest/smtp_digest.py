"""``SMTPDigest``, ``smtp://`` and ``smtps://``: flood control for mail alerts. One call, one mail.

What a mail is promised
-----------------------
* A summary on top, the records below, as plain text and HTML. Every entry of the call is in it: shown, or counted
  where it was folded (``_digest``). If that would make the mail too large, first less of each record is shown, then
  fewer entries are taken and the rest goes into the next mail (``TryAgain(accepted=n)``).
* ``Message-ID`` is made from the ids: the same entries, the same Message-ID, in every process.
  ``X-Lastwords-Ids`` names them, and so does each record.
* Nothing in a record can add a header or an HTML element.

Who got it
----------
Recipients that accepted an entry never get it again from this process. One that says "later" (4xx) gets the same
entries later, alone. One that refuses for good (5xx) while others accept does not hold up the line: the entries count
as accepted, stderr says it once, and every mail that the others get says it on top, until the address accepts again.
If nobody accepts, nothing is accepted: "later" is tried again for ever, a refusal for good counts as a failure
(``verdict``), so that a mail which the server never takes is found and an outage buries nothing. If the server has the
mail and does not say whether it took it, the same mail with the same Message-ID is sent again, but seldom: see
``mail_answer``.
"""

from __future__ import annotations

import hashlib
import re
from email.utils import parseaddr
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from ..._version import __version__
from ...errors import TryAgain
from ...runtime.stderr import say
from ..contract import Target
from ..urls.address import choice, credential_source, file_name, is_loopback, seconds, size, words
from ..urls.secret import Credentials
from ..wording import app_name, host_name, one_line
from . import content, html, text
from .mailer import PORTS, STARTTLS, Mailer, Refused, Reply, said

if TYPE_CHECKING:
    from collections.abc import Sequence
    from email.message import EmailMessage

    from ...record.codec import Entry
    from ..urls.address import Address
    from .content import Digest

MOST_REMEMBERED = 20_000  # entries that some recipients have and others wait for

_ADDRESS = re.compile(r"[^\s<>,;:\"()\[\]\x00-\x20\x7f]+")
_ID = re.compile(r"[^A-Za-z0-9._-]")


def _recipients(name: str, text: str) -> list[str]:
    return [_address(name, item.strip()) for item in text.split(",") if item.strip()] or [_address(name, "")]


def _address(name: str, text: str) -> str:
    if not _ADDRESS.fullmatch(text) or not text.isprintable() or text.startswith("@") or text.endswith("@"):
        raise ValueError(f"target: {name} must be mail addresses with commas between them, not {text[:80]!r}")
    return text


KNOBS = {
    "to": _recipients,
    "from": words,
    "subject": words,
    "app": words,
    "timeout": seconds,
    "max_bytes": size(20_000, 2**27),
    "starttls": choice(*STARTTLS),
    "cafile": file_name,
    "credentials": credential_source,
}


def from_address(address: Address) -> Target:
    """The target for an ``smtp(s)://`` URL; README has the table of its knobs."""
    if address.path not in ("", "/"):
        raise ValueError(f"target: a {address.scheme} URL has no path; write {address.shape}")
    knobs = address.knobs(KNOBS)
    if "to" not in knobs:
        raise ValueError(f"target: a {address.scheme} URL needs the knob to: write {address.shape}")
    if address.scheme == "smtps" and "starttls" in knobs:
        raise ValueError("target: the knob starttls is for smtp://; smtps:// is TLS from the first byte")
    credentials = address.credentials(knobs.pop("credentials", None))
    port = address.port or PORTS[address.scheme]
    sender = knobs.pop("from", None)
    return SMTPDigest(
        (address.host, port),
        sender,
        knobs.pop("to"),
        credentials=credentials,
        tls=address.scheme == "smtps",
        **knobs,
    )


class _Owed(NamedTuple):
    """The recipients that still wait for an entry; whether any has it."""

    waiting: tuple[str, ...]
    reached: bool


class SMTPDigest(Target):
    """Mails entries in batches, with a summary on top. See the module for what is accepted when.

    ``mailhost``: a host, or a host and a port. ``fromaddr``: the sender, "Name <address>" is fine (None: ``lastwords@``
    this host). ``toaddrs``: recipients. ``subject``: what the subject begins with (None: ``[host app]``); ``app``: the
    program's name (default: of the running one). ``credentials``: ``(username, password)``. ``tls``: TLS from the first
    byte (port 465). ``starttls``: "required", "if-offered" or "never" (None: required with credentials, else if
    offered). ``cafile``: certificates to trust instead of the system's. ``timeout``: seconds per step.
    ``max_bytes``: of the text and of the HTML, each (Gmail hides what is beyond 102 kB).

    The handler's knobs ``linger`` (seconds to collect, here 10 unless it says otherwise) and ``batch_size`` (1,000)
    decide how many mails there are. Nothing lingers when the process ends.
    Raises ValueError for a bad value. Not thread-safe, as every target.
    """

    batch_size = 1000
    linger = 10.0
    narrows = False  # a mail is as large with fewer records, and there would be more of them

    def __init__(
        self,
        mailhost: str | tuple[str, int],
        fromaddr: str | None,
        toaddrs: str | Sequence[str],
        *,
        subject: str | None = None,
        app: str | None = None,
        credentials: tuple[str, str] | Credentials | None = None,
        tls: bool = False,
        starttls: str | None = None,
        cafile: str | None = None,
        timeout: float = 30.0,
        max_bytes: int = 100_000,
    ) -> None:
        host, port = (mailhost, PORTS["smtps" if tls else "smtp"]) if isinstance(mailhost, str) else mailhost
        if starttls is not None and starttls not in STARTTLS:
            raise ValueError(f"starttls must be one of {', '.join(STARTTLS)} or None, not {starttls!r}")
        if not isinstance(max_bytes, int) or max_bytes < 20_000:
            raise ValueError(f"max_bytes must be a whole number, at least 20000, not {max_bytes!r}")
        listed = [toaddrs] if isinstance(toaddrs, str) else list(toaddrs)
        self._to = tuple(dict.fromkeys(address for item in listed for address in _recipients("toaddrs", item)))
        if not self._to:
            raise ValueError("toaddrs must be at least one mail address")
        self._host = host_name()
        self._sender, self._from = _sender(fromaddr or f"lastwords@{self._host}")
        self._app = app_name() if app is None else words("app", app)
        prefix = f"[{self._host} {self._app}]" if self._app else f"[{self._host}]"
        self._prefix = prefix if subject is None else words("subject", subject)
        self._most = max_bytes
        if isinstance(credentials, tuple):
            credentials = Credentials(*credentials, origin="the argument credentials")
        self._mailer = Mailer(
            host, port, implicit_tls=tls, starttls=starttls, credentials=credentials, timeout=timeout, cafile=cafile
        )
        self.label = f"{self._mailer.label} to {', '.join(self._to)}"
        if credentials is not None and starttls == "never" and not tls and not is_loopback(host):
            self.warnings = (f"{self._mailer.label}: the password is sent without TLS, for everybody to read",)
        self._owed: dict[str, _Owed] = {}
        self._refusing: dict[str, Reply] = {}

    def __repr__(self) -> str:
        return f"<SMTPDigest {self.label}>"

    def deliver(self, entries: Sequence[Entry]) -> None:
        nobody = _Owed(self._to, reached=False)
        owed = self._owed.get(entries[0].id, nobody)
        batch = list(takewhile(lambda entry: self._owed.get(entry.id, nobody) == owed, entries))
        mail, taken = self._compose(batch)
        batch = batch[:taken]
        try:
            refused = self._mailer.send(mail, self._sender, owed.waiting)
        except Refused as error:
            self._nobody(batch, owed, error)
        else:
            self._somebody(batch, owed, refused)
        for entry in batch:
            self._owed.pop(entry.id, None)
        if taken < len(entries):
            raise TryAgain(f"{self.label}: {taken} of {len(entries)} in this mail, the rest follows", accepted=taken)

    # --- who got it --------------------------------------------------------------------------------------------------

    def _somebody(self, batch: Sequence[Entry], owed: _Owed, refused: dict[str, Reply]) -> None:
        """Some recipients accepted. Raises TryAgain while others may do so later."""
        for address in owed.waiting:
            if address not in refused:
                self._refusing.pop(address, None)
        self._note({a: reply for a, reply in refused.items() if reply.is_final})
        later = {a: reply for a, reply in refused.items() if not reply.is_final}
        if later:
            self._remember(batch, _Owed(tuple(a for a in owed.waiting if a in later), reached=True))
            raise TryAgain(f"{self._mailer.label}: not now: {said(later)}; the others have it")

    def _nobody(self, batch: Sequence[Entry], owed: _Owed, error: Refused) -> None:
        """No recipient accepted. Returns if others have had the mail before; raises what it means otherwise."""
        final = {a: reply for a, reply in error.replies.items() if reply.is_final}
        waiting = tuple(a for a in owed.waiting if a not in final)
        if waiting:
            if not error.whole:
                self._note(final)
            self._remember(batch, _Owed(waiting, owed.reached))
            raise TryAgain(f"{self._mailer.label}: not now: {said(error.replies)}") from None
        if owed.reached:
            self._note(final)
            return
        for entry in batch:
            self._owed.pop(entry.id, None)  # the next try is for all recipients
        raise error

    def _remember(self, batch: Sequence[Entry], owed: _Owed) -> None:
        for entry in batch:
            self._owed[entry.id] = owed
        while len(self._owed) > MOST_REMEMBERED:
            del self._owed[next(iter(self._owed))]

    def _note(self, final: dict[str, Reply]) -> None:
        """Make it heard that an address refuses for good: once here, and on top of the mails of the others."""
        for address, reply in final.items():
            if self._refusing.get(address) != reply:
                say(f"{self._mailer.label}: {address} refuses the digests: {reply}")
            self._refusing[address] = reply

    # --- the mail ----------------------------------------------------------------------------------------------------

    def _compose(self, entries: Sequence[Entry]) -> tuple[EmailMessage, int]:
        """The mail for as many of ``entries`` as fit, at least one; and how many these are."""
        taken = len(entries)
        while True:
            for detail in content.DETAILS:
                digest = content.make(entries[:taken], detail)
                text, html = self._draw(digest)
                size = max(len(text.encode()), len(html.encode()))
                if size <= self._most or (taken == 1 and detail is content.DETAILS[-1]):
                    return self._message(digest, entries[:taken], text, html), taken
            taken = max(1, min(taken - 1, int(taken * self._most / size * 0.95)))

    def _draw(self, digest: Digest) -> tuple[str, str]:
        origin = f"{self._host} \u00b7 {self._app}" if self._app else self._host
        notices = [
            f"{address} does not get these mails, its server refuses them: {reply}"
            for address, reply in self._refusing.items()
        ]
        footer = f"lastwords, {content.plural(digest.count, 'record')}: {_brief(digest.ids)}"
        return (
            text.draw(digest, origin=origin, notices=notices, footer=footer),
            html.draw(digest, origin=origin, notices=notices, footer=footer),
        )

    def _message(self, digest: Digest, entries: Sequence[Entry], text: str, html: str) -> EmailMessage:
        import email.policy  # noqa: PLC0415
        import email.utils  # noqa: PLC0415
        from email.message import EmailMessage  # noqa: PLC0415

        message = EmailMessage(email.policy.SMTP)
        message["From"] = self._from
        message["To"] = ", ".join(self._to)
        message["Subject"] = self._subject(digest)
        message["Date"] = email.utils.localtime()
        message["Message-ID"] = message_id(entries, self._sender)
        message["X-Lastwords-Ids"] = _brief(digest.ids)
        message["X-Mailer"] = f"lastwords {__version__}"
        # RFC 3834, and its forerunner for Exchange: no out-of-office replies to a program.
        message["Auto-Submitted"] = "auto-generated"
        message["X-Auto-Response-Suppress"] = "All"
        # Every server takes quoted-printable: no line is too long, no byte has eight bits.
        message.set_content(text, cte="quoted-printable")
        message.add_alternative(html, subtype="html", cte="quoted-printable")
        return message

    def _subject(self, digest: Digest) -> str:
        counts = ", ".join(f"{count:,} {name}" for _, name, count in digest.levels[:3])
        more = sum(count for _, _, count in digest.levels[3:])
        return one_line(f"{self._prefix} {counts}{f', {more:,} more' if more else ''}: {digest.headline}", 150)


def _sender(text: str) -> tuple[str, str]:
    """The address for the envelope and the text for the header."""
    name, address = parseaddr(text)
    if not text.isprintable() or not _ADDRESS.fullmatch(address):
        raise ValueError(f"target: from must be a mail address, such as app@example.com, not {text[:80]!r}")
    return address, text if name else address


def message_id(entries: Sequence[Entry], sender: str) -> str:
    """The same for the same entries."""
    digest = hashlib.sha256("\n".join([entry.id for entry in entries]).encode("utf-8", "backslashreplace")).hexdigest()[
        :16
    ]
    first = _ID.sub("_", entries[0].id)[:80]
    domain = _ID.sub("_", sender.rpartition("@")[2]) or "lastwords"
    return f"<{first}.{len(entries)}.{digest}@{domain}>"


def _brief(ids: str, most: int = 600) -> str:
    """``ids`` at a length that a header takes."""
    if len(ids) <= most:
        return ids
    kept = ids[:most].rpartition(", ")[0]
    return f"{kept}, and {ids[len(kept) :].count(', ')} more"
