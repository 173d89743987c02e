"""URLs taken apart, and the checks of their knobs. Pure; no message shows a credential."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from .secret import DEFAULT_PREFIX, HARMLESS, Credentials, from_environment, may_hold_more, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[str, str], Any]

_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_PREFIX = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PORT = re.compile(r"[^:/?#]+://(?:[^/?#@]*@)?(?:[^/?#@:\[\]]+|\[[^\]/?#@]*\]):([0-9]+)(?:[/?]|$)")


class Address:
    """The parts of a URL, decoded. ``shape``: how such a URL is written, for messages."""

    __slots__ = ("_query", "_userinfo", "host", "path", "port", "scheme", "shape")

    def __init__(
        self, scheme: str, shape: str, *, host: str, port: int | None, path: str, userinfo: str, query: str
    ) -> None:
        self.scheme = scheme
        self.shape = shape
        self.host = host
        self.port = port
        self.path = path
        self._userinfo = userinfo
        self._query = query

    def __repr__(self) -> str:
        return f"<Address {self.scheme} {self.place()}>"

    @property
    def has_userinfo(self) -> bool:
        """True if there is something before an ``@``."""
        return bool(self._userinfo)

    def place(self, default_port: int | None = None) -> str:
        """``host:port``, an IPv6 address in brackets; without a default, as the user wrote it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = self.port or default_port
        return f"{host}:{port}" if port else host

    def knobs(self, known: Mapping[str, Check]) -> dict[str, Any]:
        """The knobs that the URL sets, checked. ValueError for one that is not in ``known``, or set twice."""
        values: dict[str, Any] = {}
        for part in self._query.split("&"):
            if not part:
                continue
            name, _, raw = part.partition("=")
            name, text = unquote(name), unquote(raw)
            if name not in known:
                allowed = ", ".join(sorted(known)) or "none"
                what = repr(name[:40]) if name.isidentifier() else "of that name"  # half a password, after its ?
                raise ValueError(f"target: {self.scheme}: has no knob {what}; there are {allowed}")
            if name in values:
                raise ValueError(f"target: the knob {name} is given twice")
            values[name] = _checked(known[name], name, text)
        return values

    def credentials(self, source: str | None) -> Credentials | None:
        """Those of the URL, else of the environment. ``source``: the knob ``credentials``."""
        user, colon, password = self._userinfo.partition(":")
        user, password = unquote(user), unquote(password)
        if colon and password:
            if source is not None:
                raise ValueError("target: the URL has a password already; leave out the knob credentials")
            return Credentials(user, password, "the URL")
        if source == "none":
            return None
        found = from_environment(source or DEFAULT_PREFIX, user, wanted=source is not None or bool(user))
        if found is not None:
            _printable(found)
        return found


def _checked(check: Check, name: str, text: str) -> Any:
    wrong = ""
    try:
        return check(name, text)
    except ValueError as error:
        if name not in HARMLESS or not may_hold_more(text):
            raise
        wrong = str(error).partition(", not ")[0]  # where all of them quote the value
    raise ValueError(wrong)  # here, so that the other one is not its context


def permitted(
    address: Address, source: str | None, *, secure: bool, default_port: int
) -> tuple[Credentials | None, tuple[str, ...]]:
    """The credentials that may be sent, and what the user should know. ``secure``: the connection is encrypted.

    A variable that was set for one destination must not go to another one for everybody to read.
    """
    credentials = address.credentials(source)
    if credentials is None or secure or is_loopback(address.host):
        return credentials, ()
    place = f"{address.scheme}://{address.place(default_port)}"
    if credentials.origin == "the URL" or source is not None:
        return credentials, (f"{place}: the credentials are sent without TLS, for everybody to read",)
    how = "write ?credentials=LASTWORDS to send them all the same, or ?credentials=none"
    return None, (f"{place}: the credentials of the environment are not sent without TLS; {how}",)


def _printable(found: Credentials) -> None:
    if _CONTROL.search(found.password.reveal().replace(" ", "")) or "\n" in found.username.reveal():
        raise ValueError(f"target: the credentials from {found.origin} have control characters in them")


def split(url: str, scheme: str, shape: str) -> Address:
    """Take ``url`` apart. ValueError says what is wrong, without quoting what may be a password."""
    if _CONTROL.search(url.strip()):
        raise ValueError(f"target: a {scheme} URL must not have spaces or control characters: write %20 and the like")
    if scheme in ("file", "stdout", "stderr"):
        return _split_local(url.strip(), scheme, shape)
    return _split_remote(url.strip(), scheme, shape)


def _split_local(url: str, scheme: str, shape: str) -> Address:
    rest, _, query = url.partition(":")[2].partition("?")
    if rest.startswith("//"):  # file:///path, as browsers write it; file://host/path is another computer's
        authority, slash, path = rest[2:].partition("/")
        if authority not in ("", "localhost"):
            raise ValueError(f"target: {shown(f'{scheme}:{rest}')[:80]} is on another computer; write {shape}")
        rest = slash + path
    return Address(scheme, shape, host="", port=None, path=unquote(rest), userinfo="", query=query)


def _split_remote(url: str, scheme: str, shape: str) -> Address:
    if "#" in url:
        raise ValueError(f"target: a {scheme} URL must not have a #: write %23")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:  # its text may quote a password: an unencoded / ? or : in one ends up where a port is expected
        parts, port, host = urlsplit(""), None, None
    given = _PORT.match(url)
    if given is not None and not 0 < int(given[1][:9]) <= 65535:
        raise ValueError("target: the port is out of range: it must be from 1 to 65535")
    if not host or "@" in parts.path or not url[len(scheme) + 1 :].startswith("//"):
        raise ValueError(
            f"target: this is no {scheme} URL; write {shape}. In a user name or password, / ? # : @ are written %XX"
        )
    userinfo = parts.netloc.rpartition("@")[0]
    return Address(scheme, shape, host=host, port=port, path=parts.path, userinfo=userinfo, query=parts.query)


# --- checks, for tables of knobs -----------------------------------------------------------------------------------


def seconds(name: str, text: str) -> float:
    """A timeout."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise ValueError(f"target: {name} must be seconds, more than 0 and at most 86400, not {text[:80]!r}")
    return value


def flag(name: str, text: str) -> bool:
    """0 or 1."""
    values = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in values:
        raise ValueError(f"target: {name} must be 1 or 0 (true, false, yes, no), not {text[:80]!r}")
    return values[text.lower()]


def choice(*allowed: str) -> Check:
    """One of some words."""

    def check(name: str, text: str) -> str:
        if text not in allowed:
            raise ValueError(f"target: {name} must be one of {', '.join(allowed)}, not {text[:80]!r}")
        return text

    return check


def size(least: int, most: int) -> Check:
    """A number of bytes."""
    return number(least, most, "number of bytes")


def number(least: int, most: int, what: str = "whole number") -> Check:
    """A whole number."""

    def check(name: str, text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
            raise ValueError(f"target: {name} must be a {what} from {least} to {most}, not {text[:80]!r}")
        return int(text)

    return check


def words(name: str, text: str) -> str:
    """Any printable text."""
    if not text or not text.isprintable():
        raise ValueError(f"target: {name} must be printable text on one line, not {text[:80]!r}")
    return text


def absolute(path: str, name: str) -> str:
    """``~`` expanded and made absolute: a daemon changes its folder later."""
    try:
        return os.path.abspath(os.path.expanduser(path))
    except FileNotFoundError as error:
        raise ValueError(f"target: {name} is relative, and the current folder no longer exists") from error


def file_name(name: str, text: str) -> str:
    """A file that is there: it is read when connecting, and a missing one should be noticed before that."""
    path = absolute(text, name)
    if not os.path.isfile(path):
        raise ValueError(f"target: {name} must be the path of a file that exists, not {text[:200]!r}")
    return path


def credential_source(name: str, text: str) -> str:
    """What names the environment variables with the credentials."""
    if not _PREFIX.fullmatch(text):
        raise ValueError(
            f"target: {name} must be the NAME of NAME_USERNAME and NAME_PASSWORD in the environment, or none; a name "
            "has letters, digits and _"  # what was written is not quoted: it may be the password itself
        )
    return text


def is_loopback(host: str) -> bool:
    """True for this computer."""
    return host in ("localhost", "::1") or host.startswith("127.")
