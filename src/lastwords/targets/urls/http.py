"""``http(s)://``: batches of entries as JSON Lines or a JSON array, by POST (Elasticsearch: see ``elastic``).

What an answer means
--------------------
==============================  ===================================================================================
2xx                             accepted
409                             accepted: every request has its own ``Idempotency-Key``, and the receiver knows it
                                already; with ``Retry-After`` it is still busy with the first one: try again
408, 425, 429, 5xx              try again, after ``Retry-After`` (seconds or a date) if it says so
no answer                       try again: connection errors, TLS errors, timeouts; after a timeout (408 and 504 are
                                those of the receiver) with fewer entries, until the receiver keeps up
413 with several entries        the request is too large: halve it, and remember the size
401 402 403 404 405 406 407     about the request as a whole (a password that has expired, a wrong address), not about
410 411 415 421 426 431 3xx     an entry: a failure, so nothing is buried while the receiver accepts nothing
other 4xx                       rejected: the entry is a dead letter; of several, the culprit is found by halving
==============================  ===================================================================================

Redirects are not followed: credentials and log records go where the user said.

The key is made from the ids, so the same batch has the same key in every process; a batch that is cut differently the
second time has another one, and then the ``id`` of each entry tells.

The client is urllib3 (extra ``lastwords[http]``): blocking like our courier, no dependencies of its own, no hidden
retries, redirects, cookies or ``.netrc``, released all the time. requests is under feature freeze and reads ``.netrc``;
httpx had no release since December 2024; niquests replaces urllib3 for the whole environment.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import re
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from ..._version import __version__
from ...errors import Rejected, TryAgain
from ..handlers.http import ABOUT_THE_REQUEST, NOT_NOW, retry_after
from ..reading_ahead import ReadsAhead
from ..wording import as_json, one_line
from .address import choice, credential_source, file_name, flag, is_loopback, permitted, seconds, size, words
from .tls import verifying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import urllib3

    from ...record.codec import Entry
    from ..contract import Target
    from .address import Address
    from .secret import Credentials

CONFLICT = 409
TOO_LARGE = 413
TOO_SLOW = frozenset({408, 504})  # the receiver's own limit, or that of a proxy before it: fewer entries may help

_AUTH = re.compile(r"basic|bearer|header:[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OTHER_AUTH = ("apikey", "aws", "digest", "hawk", "header", "key", "negotiate", "none", "ntlm", "oauth", "token")
_MISSING = "{}:// needs an HTTP client: pip install 'lastwords[{}]'"


def _auth(name: str, text: str) -> str:
    if not _AUTH.fullmatch(text):
        what = repr(text) if text in _OTHER_AUTH else "what it says"  # which may be the token itself
        raise ValueError(f"target: {name} must be basic, bearer or header:NAME, not {what}")
    return text


def _query(name: str, text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text or "#" in text:
        raise ValueError(f"target: {name} must be a query string for the receiver, itself percent-encoded as a whole")
    return text


KNOBS = {
    "timeout": seconds,
    "gzip": flag,
    "format": choice("jsonl", "array", "elasticsearch"),
    "max_bytes": size(1024, 2**31),
    "cafile": file_name,
    "certfile": file_name,
    "keyfile": file_name,
    "auth": _auth,
    "query": _query,
    "app": words,
    "credentials": credential_source,
}


def from_address(address: Address) -> Target:
    """The target for an ``http(s)://`` URL; README has the table of its knobs."""
    knobs = address.knobs(KNOBS)
    if knobs.get("format") == "elasticsearch":
        from .elastic import Elastic  # noqa: PLC0415 - it is an HTTP target

        return build(Elastic, address, knobs)
    return build(HTTP, address, knobs)


def build(kind: type[HTTP], address: Address, knobs: dict[str, Any]) -> HTTP:
    """A target of ``kind``, with credentials that may be sent."""
    if importlib.util.find_spec("urllib3") is None:
        raise ModuleNotFoundError(
            _MISSING.format(address.scheme, address.scheme.partition("+")[0].rstrip("s")), name="urllib3"
        )
    secure = address.scheme.endswith("https")
    port = kind.ports[secure]
    credentials, warnings = permitted(address, knobs.pop("credentials", None), secure=secure, default_port=port)
    if credentials is None and "auth" in knobs:
        raise ValueError("target: the knob auth needs credentials, in the URL or in the environment")
    target = kind(address, credentials=credentials, **knobs)
    target.warnings = warnings
    return target


class Chunk(NamedTuple):
    """What goes into one request."""

    entries: Sequence[Entry]
    lines: list[bytes]


class Answer(NamedTuple):
    """``asked``: seconds of Retry-After. ``data``: at most ``most_of_an_answer`` bytes."""

    status: int
    reason: str
    asked: float | None
    kind: str
    data: bytes

    def __repr__(self) -> str:  # a traceback may show it, and the receiver may quote our headers
        return f"<Answer {self.status}>"


class HTTP(ReadsAhead[bytes]):
    """POSTs entries; see the module. ``max_bytes``: of a request before compression; one entry may exceed it."""

    ports = (80, 443)  # where the URL has none, without and with TLS
    path = "/"  # where it has none
    most_of_an_answer = 2048  # bytes: enough to say what is wrong, and to use the connection again

    def __init__(
        self,
        address: Address,
        *,
        credentials: Credentials | None = None,
        auth: str = "basic",
        timeout: float = 30.0,
        gzip: bool = True,
        format: str = "jsonl",  # noqa: A002 - the knob's name
        max_bytes: int = 4 * 2**20,
        cafile: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        query: str = "",
        app: str = "",
    ) -> None:
        self._scheme, self._host = address.scheme.rpartition("+")[2], address.host
        port = self.ports[self._scheme == "https"]
        place = address.place(port)
        path = address.path if address.path.strip("/") else self.path
        host = address.place(None if port in (80, 443) else port)  # a URL does not name the port that is understood
        self._url = f"{self._scheme}://{host}{path}" + (f"?{query}" if query else "")
        self._credentials, self._auth = credentials, auth
        self._timeout = timeout
        self._gzip = gzip
        self._array = format == "array"
        self._kind = "application/json" if self._array else "application/x-ndjson"
        self._most = max_bytes
        self._files = (cafile, certfile, keyfile)
        self._query = query
        self._app = app
        self._pool: urllib3.PoolManager | None = None
        self._pid = 0
        self.label = f"{address.scheme}://{place}{_shown(path)}"

    def deliver(self, entries: Sequence[Entry]) -> None:
        done, lines = 0, self._made_of(entries)
        refused: Rejected | None = None  # what was refused by name, in several requests
        while done < len(entries):
            chunk = self._cut(entries[done:], lines[done:])
            try:
                done += self._post(chunk)
            except Exception as error:
                if isinstance(error, Rejected) and error.entries:
                    before = refused or Rejected(error.reason, entries=())
                    refused = Rejected(before.reason, entries=(*(before.entries or ()), *error.entries))
                    done += len(chunk.entries)
                    continue
                accepted = done if refused is None else _before(entries, refused)
                if not accepted:
                    raise
                after = getattr(error, "after", None)
                raise TryAgain(
                    f"after {accepted} of {len(entries)} entries: {error}", after=after, accepted=accepted
                ) from error
        if refused is not None:
            raise refused

    def _cut(self, entries: Sequence[Entry], lines: list[bytes]) -> Chunk:
        """As many entries as one request takes, at least one."""
        sizes = accumulate(len(line) + 1 for line in lines)
        most = max(1, sum(1 for _ in takewhile(self._most.__ge__, sizes)))
        return Chunk(entries[:most], lines[:most])

    def _make(self, entries: Sequence[Entry]) -> list[bytes]:
        return [self._line(entry) for entry in entries]

    def _line(self, entry: Entry) -> bytes:
        """The entry, as a part of a request."""
        return as_json(entry)

    def _body(self, chunk: Chunk) -> bytes:
        return b"[" + b",\n".join(chunk.lines) + b"]\n" if self._array else b"\n".join(chunk.lines) + b"\n"

    def _said(self, answer: Answer) -> str:
        """What the receiver says in its answer."""
        return answer.data.decode("utf-8", "replace")

    def _taken(self, chunk: Chunk, answer: Answer) -> None:
        """The status says that all is well; raise if the rest of the answer does not."""

    def _post(self, chunk: Chunk) -> int:
        """How many entries were accepted: all, or none because the next try is made with fewer."""
        body = self._body(chunk)
        answer = self._exchange(body, chunk.entries)
        status, asked = answer.status, answer.asked
        text = self.scrub(one_line(self._said(answer), 300))
        words = f"{self.label}: HTTP {status} {answer.reason}".rstrip() + (f": {text}" if text else "")
        if 200 <= status < 300 or (status == CONFLICT and asked is None):
            self._taken(chunk, answer)
            return len(chunk.entries)
        if status == TOO_LARGE and len(chunk.entries) > 1:
            self._most = max(1, len(body) // 2)
            return 0
        if status in TOO_SLOW and asked is None:
            raise TryAgain(words) from TimeoutError(words)
        if status in NOT_NOW or status >= 500 or status == CONFLICT:
            raise TryAgain(words, after=asked)
        if status in ABOUT_THE_REQUEST or status < 400:
            raise RuntimeError(f"{words}: {'not followed' if 300 <= status < 400 else 'check URL and credentials'}")
        raise Rejected(words)

    def _exchange(self, body: bytes, entries: Sequence[Entry]) -> Answer:
        import urllib3  # noqa: PLC0415 - an extra, and 30 ms

        try:
            answer, text = self._request(body, entries)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._drop()
            silent = isinstance(error, urllib3.exceptions.ReadTimeoutError | TimeoutError)
            reason = self.scrub(_reason(error))
            raise ConnectionError(f"{self.label}: {reason}") from (TimeoutError(reason) if silent else None)
        asked, kind = retry_after(answer.headers.get("Retry-After")), answer.headers.get("Content-Type", "")
        return Answer(answer.status, one_line(answer.reason or "", 80), asked, kind, text)

    def _request(self, body: bytes, entries: Sequence[Entry]) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        headers = self._headers(entries)
        if self._gzip:
            body = gzip.compress(body, 6, mtime=0)
            headers["Content-Encoding"] = "gzip"
        answer = self._open().request(
            "POST", self._url, body=body, headers=headers, preload_content=False, redirect=False, retries=False
        )
        text = answer.read(self.most_of_an_answer, decode_content=True)
        if answer.read(1):
            answer.close()  # a longer answer is not worth the wait; the connection goes with it
        else:
            answer.release_conn()
        return answer, text

    def _headers(self, entries: Sequence[Entry]) -> dict[str, str]:
        headers = {
            "Content-Type": self._kind,
            "Idempotency-Key": idempotency_key(entries),
            "User-Agent": f"lastwords/{__version__}" + (f" ({self._app})" if self._app else ""),
        }
        if self._credentials is not None:
            headers |= _authorization(self._credentials, self._auth)
        return headers

    def _open(self) -> urllib3.PoolManager:
        if self._pool is None or self._pid != os.getpid():  # a fork: the connection is shared with the parent
            self._pool, self._pid = self._make_pool(), os.getpid()
            inside = self._pool.connection_from_url(self._url)  # the only one, as there is one place
            inside.ConnectionCls = _busy_while_waiting(inside.ConnectionCls, self._meantime)
        return self._pool

    def _make_pool(self) -> urllib3.PoolManager:
        import urllib3  # noqa: PLC0415

        settings: dict[str, Any] = {"timeout": urllib3.Timeout(self._timeout), "num_pools": 1, "maxsize": 1}
        if self._scheme == "https":
            settings["ssl_context"] = verifying(*self._files)
        proxy = _proxy(self._scheme, self._host)
        if proxy is None:
            return urllib3.PoolManager(**settings)
        headers = urllib3.make_headers(proxy_basic_auth=proxy.auth) if proxy.auth else None
        return urllib3.ProxyManager(proxy.url, proxy_headers=headers, **settings)

    def scrub(self, text: str) -> str:
        """``text`` without our credentials."""
        if self._query:
            text = text.replace(self._query, "***")
        return text if self._credentials is None else self._credentials.scrub(text)

    def _drop(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.clear()

    def close(self) -> None:
        self._drop()

    def after_fork_in_child(self) -> None:
        self._pool = None


def _busy_while_waiting(kind: Any, meantime: Callable[[], Iterator[None]]) -> Any:
    """urllib3's connection of that ``kind``, which does something between a request and its answer."""

    def getresponse(connection: Any) -> Any:
        for _ in meantime():
            pass
        return kind.getresponse(connection)

    return type(kind.__name__, (kind,), {"getresponse": getresponse})


def _before(entries: Sequence[Entry], refused: Rejected) -> int:
    """How many entries were accepted before the first that was refused."""
    named = set(refused.entries or ())
    return next(number for number, entry in enumerate(entries) if entry.id in named)


def idempotency_key(entries: Sequence[Entry]) -> str:
    """The same for the same entries, in every process."""
    if len(entries) == 1:
        return entries[0].id
    return hashlib.sha256("\n".join([entry.id for entry in entries]).encode()).hexdigest()


def _authorization(credentials: Credentials, auth: str) -> dict[str, str]:
    user, password = credentials.username.reveal(), credentials.password.reveal()
    if auth.startswith("header:"):
        return {auth.partition(":")[2]: password}
    if auth == "bearer":
        return {"Authorization": f"Bearer {password}"}
    import base64  # noqa: PLC0415

    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _reason(error: BaseException) -> str:
    """What went wrong, without the object addresses and the repetitions of urllib3's texts."""
    cause = error.__cause__ or error.__context__ or error
    text = str(cause) if isinstance(cause, OSError) else str(error)
    return f"{type(error).__name__}: {one_line(text or type(cause).__name__, 300)}"


def _shown(path: str) -> str:
    """``path`` for a label: what looks like a token (a webhook's key) is not shown."""
    parts = path.split("/")
    return "/".join("***" if len(part) >= 16 and any(c.isdigit() for c in part) else part for part in parts)


class _Proxy(NamedTuple):
    url: str
    auth: str


def _proxy(scheme: str, host: str) -> _Proxy | None:
    """The proxy that the environment names (``https_proxy``, ``no_proxy``), as for curl; never for this computer."""
    import urllib.request  # noqa: PLC0415
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415

    url = urllib.request.getproxies_environment().get(scheme)
    if not url or is_loopback(host) or urllib.request.proxy_bypass_environment(host):  # type: ignore[attr-defined]
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    userinfo, _, place = parts.netloc.rpartition("@")
    return _Proxy(f"{parts.scheme}://{place}", unquote(userinfo))
