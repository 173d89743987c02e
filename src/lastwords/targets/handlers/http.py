"""HTTPHandler: the status of the response decides.

stdlib reads the response and "can't do anything with the result". Here ``getConnection`` is shadowed while we deliver:
its connection remembers the response, sends ``Idempotency-Key`` with the entry's id, and has a timeout (stdlib's has
none and may hang for ever).
"""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING, Any

from ...errors import Rejected, TryAgain
from .wrap import HandlerTarget, shadowed

if TYPE_CHECKING:
    import http.client
    import logging

    from ...record.codec import Entry

TIMEOUT_SECONDS = 30.0
LONGEST_SECONDS = 86400.0  # a day: a server that asks for more is mistaken, and nobody would notice for years
NOT_NOW = frozenset({408, 425, 429})
# About the request as a whole (a password that has expired, a wrong address): every entry would get the same answer, so
# they are failures, which bury nothing while the receiver accepts nothing.
ABOUT_THE_REQUEST = frozenset({401, 402, 403, 404, 405, 406, 407, 410, 411, 415, 421, 426, 431})


def retry_after(value: str | None) -> float | None:
    """Seconds that ``Retry-After`` asks for, as a number or a date (RFC 9110, 10.2.3), at most a day; or None."""
    if not value:
        return None
    if value.isascii() and value.strip().isdigit():  # a superscript two is a digit too, and no number
        return min(LONGEST_SECONDS, float(value))
    try:
        asked = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(LONGEST_SECONDS, max(0.0, asked))


def judge(status: int, reason: str, asked: str | None) -> None:
    """Raise what an HTTP status says of the request; return for 2xx."""
    if 200 <= status < 300:
        return
    text = f"HTTP {status} {reason}".rstrip()
    if status in NOT_NOW or status >= 500:
        raise TryAgain(text, after=retry_after(asked))
    if status >= 400 and status not in ABOUT_THE_REQUEST:
        raise Rejected(text)
    raise RuntimeError(text if status >= 400 else f"{text}: not followed")


class HTTPTarget(HandlerTarget):
    """Accepted: a 2xx status."""

    rebuild_helps = False
    _response: http.client.HTTPResponse | None = None
    _connected = False

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(handler)
        if not self.drives:
            reason = "overrides emit(): a status that it ignores is noticed only if it comes through getConnection()"
            self.warnings += (f"{type(handler).__name__} {reason}",)

    def describe(self) -> str:
        handler = self.handler
        scheme = "https" if handler.secure else "http"
        path = str(handler.url).partition("?")[0]  # a query may hold a key
        return f"{type(handler).__name__} {scheme}://{handler.host}{path}"

    def emit(self, entry: Entry) -> None:
        self._response, self._connected = None, False
        connect = self.handler.getConnection
        connections: list[Any] = []

        def get_connection(*args: Any, **kwargs: Any) -> Any:
            connection = connect(*args, **kwargs)
            connections.append(connection)
            self._connected = True
            return self._instrument(connection, entry.id)

        try:
            with shadowed(self.handler, "getConnection", get_connection):
                super().emit(entry)
        finally:
            for connection in connections:
                connection.close()

    def _instrument(self, connection: Any, entry_id: str) -> Any:
        if not isinstance(connection.timeout, int | float):  # None or http.client's "no default" object
            connection.timeout = TIMEOUT_SECONDS
        get_response, end_headers = connection.getresponse, connection.endheaders

        def getresponse() -> http.client.HTTPResponse:
            response: http.client.HTTPResponse = get_response()
            self._response = response
            return response

        def endheaders(*args: Any, **kwargs: Any) -> None:
            connection.putheader("Idempotency-Key", entry_id)
            end_headers(*args, **kwargs)

        connection.getresponse, connection.endheaders = getresponse, endheaders
        return connection

    def after(self, entry: Entry) -> None:
        response = self._response
        if response is None:
            if not self.drives and not self._connected:
                return  # it has a client of its own
            raise RuntimeError(f"{type(self.handler).__name__} read no response through getConnection()")
        judge(response.status, response.reason, response.headers.get("Retry-After"))
