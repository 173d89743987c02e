"""Credentials: kept out of every text that may be shown, journaled or sent to somebody else.

A password lives in a :class:`Secret`, whose repr is ``***``, so that a traceback with local variables shows no more.
``scrub`` is for texts that others wrote: a server that quotes the password in its refusal. ``shown`` is for a target
that the user wrote, perhaps wrongly: where the password is in a URL with a typing mistake can only be guessed, so it
guesses generously.
"""

from __future__ import annotations

import base64
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_PREFIX = "LASTWORDS"

# The knobs whose values may be shown. Not auth, query, credentials, resource: keys are written there by mistake.
HARMLESS = frozenset(
    """app cafile certfile compression create creds db env extras facility format from gzip hostname key keyfile
    max_bytes maxlen mode once partial replicas sasl sd_id servers starttls subject timeout to""".split()
)
_SCHEME = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:/+|(?:smtps?|https?|syslog\+(?:tcp|tls)|ext|cfg):)", re.IGNORECASE)
_LOCAL = re.compile(r"\s*(?:file|stdout|stderr):", re.IGNORECASE)
_WELL_FORMED = re.compile(
    r"\s*(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/?#@\s]*@)?"
    r"(?P<rest>(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])?(?::\d{1,5})?(?:/[^?#@\s]*)?)(?P<query>\?[^#\s]*)?\s*",
    re.IGNORECASE,
)
_QUERY = re.compile("[?&;]")
_KNOB = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*(?:=.*)?", re.DOTALL)


class Secret:
    """A text that is only given out by :meth:`reveal`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


class Credentials:
    """A user and a password. ``origin``: where they were read, for error messages."""

    __slots__ = ("origin", "password", "username")

    def __init__(self, username: str, password: str, origin: str) -> None:
        self.username = Secret(username)
        self.password = Secret(password)
        self.origin = origin

    def __repr__(self) -> str:
        return f"<Credentials from {self.origin}>"

    def scrub(self, text: str) -> str:
        """``text`` without the password, however it is encoded there, and without the user's name beside it."""
        user, password = self.username.reveal(), self.password.reveal()
        pairs = (f"{user}:{password}", f"\0{user}\0{password}")
        forms = {password, quote(password, safe=""), quote_plus(password), repr(password)[1:-1]}
        forms |= {_base64(item) for item in (password, user, *pairs)}
        return _without(text, forms)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _without(text: str, forms: Iterable[str]) -> str:
    for form in sorted((f for f in forms if len(f) > 2), key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def from_environment(prefix: str, username: str = "", *, wanted: bool) -> Credentials | None:
    """``PREFIX_USERNAME`` and ``PREFIX_PASSWORD``; ``username``, where given, instead of the former.

    ``wanted``: the user asked for them, so that a missing password is a ValueError.
    """
    names = (f"{prefix}_USERNAME", f"{prefix}_PASSWORD")
    password = os.environ.get(names[1], "")
    if not password:
        if wanted:
            raise ValueError(f"target: {names[1]} is not set in the environment, or empty")
        return None
    return Credentials(username or os.environ.get(names[0], ""), password, f"{prefix}_* of the environment")


# --- what a user wrote ---------------------------------------------------------------------------------------------


def shown(text: str) -> str:
    """What was given as a target, as it may be shown: ``***`` is where a credential is, or may be.

    Cron mails what we say, and a dead letter or a bug report quotes it.
    """
    local = _LOCAL.match(text)
    if local is not None and ":" not in text[local.end() :].partition("@")[0]:
        path, mark, query = text.partition("?")
        return path + mark + _query(query)
    found = _WELL_FORMED.fullmatch(text)
    if found is not None and local is None and _is_query((found["query"] or "")[1:]):
        query = "?" + _query(found["query"][1:]) if found["query"] else ""
        return found["scheme"] + ("***@" if found["user"] else "") + found["rest"] + query
    scheme = local or _SCHEME.match(text)
    head, rest = ("", text) if scheme is None else (text[: scheme.end()], text[scheme.end() :])
    before, at, after = rest.rpartition("@")
    if at:  # an unencoded / ? # or : in a password, a missing slash: all that is in front of the @ is suspected
        rest = f"***@{after}"
    elif scheme is not None and ":" in before + after:  # the @ itself is missing
        rest = rest[: rest.index(":") + 1] + "***"
    rest, hash_, _ = rest.partition("#")
    start = _QUERY.search(rest)  # what is left of it: the ? itself may have been in front of the @
    path, query = (rest, "") if start is None else (rest[: start.end()], rest[start.end() :])
    return head + path + _query(query) + (hash_ and "#***")


def _is_query(text: str) -> bool:
    return all(_KNOB.fullmatch(part) for part in text.split("&") if part)


def _query(text: str) -> str:
    """The knobs, with the values of those that are known to be harmless."""
    return "&".join([_parameter(part) for part in text.split("&")])


def may_hold_more(value: str) -> bool:
    """True for the value of a harmless knob that may have swallowed another one: ``to=a@b.c;password=...``."""
    return not set(";=:").isdisjoint(value)


def _parameter(part: str) -> str:
    name, equals, value = part.partition("=")
    if not part or (unquote(name) in HARMLESS and not may_hold_more(value)):
        return part
    return (name if equals and _KNOB.fullmatch(name) else "") + equals + "***"
