"""Credentials: kept out of every text that may be shown, journaled or sent to somebody else.

A password lives in a :class:`Secret`, whose repr is ``***``, so that a traceback with local variables shows no more.
``scrub`` is for texts that others wrote: a server that quotes the password in its refusal.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_PREFIX = "LASTWORDS"


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
