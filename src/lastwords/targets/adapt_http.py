"""HTTPHandler: the status of the response decides.

stdlib reads the response and "can't do anything with the result". Here ``getConnection`` is shadowed while we deliver:
its connection remembers the response, sends ``Idempotency-Key`` with the entry's id, and has a timeout (stdlib's has
none and may hang for ever).
"""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING, Any

from ..errors import Rejected, TryAgain
from .handlers import HandlerTarget, shadowed

if TYPE_CHECKING:
    import http.client

    from ..record import Entry

TIMEOUT_SECONDS = 30.0
NOT_NOW = frozenset({408, 425, 429})
# About the request as a whole (a password that has expired, a wrong address): every entry would get the same answer, so
# they are failures, which bury nothing while the receiver accepts nothing.
ABOUT_THE_REQUEST = frozenset({401, 402, 403, 404, 405, 406, 407, 410, 411, 415, 421, 426, 431})


def retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as a number or a date (RFC 9110, 10.2.3); else None."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


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

    def describe(self) -> str:
        handler = self.handler
        scheme = "https" if handler.secure else "http"
        path = str(handler.url).partition("?")[0]  # a query may hold a key
        return f"{type(handler).__name__} {scheme}://{handler.host}{path}"

    def emit(self, entry: Entry) -> None:
        self._response = None
        connect = self.handler.getConnection
        connections: list[Any] = []

        def get_connection(*args: Any, **kwargs: Any) -> Any:
            connection = connect(*args, **kwargs)
            connections.append(connection)
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
            raise RuntimeError(f"{type(self.handler).__name__} read no response through getConnection()")
        judge(response.status, response.reason, response.headers.get("Retry-After"))
