"""GELF over HTTP (graypy, pygelf): what Graylog answered decides.

Both libraries send the request and never look for an answer: a refused connection is heard of, a 503 is not. So a
handler that does not override ``emit`` is driven here, from its own attributes: its payload, headers, timeout and TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .http import judge
from .wrap import HandlerTarget

if TYPE_CHECKING:
    import http.client
    import logging

    from ...record.codec import Entry


class GelfHTTPTarget(HandlerTarget):
    """Accepted: a 2xx status."""

    rebuild_helps = False

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(handler)
        self._sends_as_usual = type(handler).emit.__module__ in ("graypy.handler", "pygelf.handlers")
        if not self._sends_as_usual:
            remedy = "override makePickle() or convert_record_to_gelf() instead"
            reason = "overrides emit(): an HTTP status that it ignores is not noticed"
            self.warnings += (f"{type(handler).__name__} {reason}; {remedy}",)

    def describe(self) -> str:
        handler = self.handler
        return f"{type(handler).__name__} {handler.host}:{handler.port}{handler.path}"

    def emit(self, entry: Entry) -> None:
        if not self._sends_as_usual:
            super().emit(entry)
            return
        handler = self.handler
        pack = getattr(handler, "convert_record_to_gelf", None) or handler.makePickle  # pygelf; graypy
        payload = pack(entry.record)
        connection = self._connect()
        try:
            connection.request("POST", handler.path, payload, {**handler.headers, "Idempotency-Key": entry.id})
            response = connection.getresponse()
            judge(response.status, response.reason, response.headers.get("Retry-After"))
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        import http.client  # noqa: PLC0415 - each adapter imports what it needs, when it delivers

        handler = self.handler
        context = getattr(handler, "ctx", None)
        if context is None:
            return http.client.HTTPConnection(handler.host, handler.port, timeout=handler.timeout)
        return http.client.HTTPSConnection(handler.host, handler.port, timeout=handler.timeout, context=context)
