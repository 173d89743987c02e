"""python-logstash-async's SynchronousLogstashHandler: its transport decides what it can know.

It calls ``handleError`` when sending fails. Over HTTP and Beats there is an answer to wait for; over HTTP an event that
is larger than ``max_content_length`` is skipped without a word, which is heard here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import Rejected
from .wrap import HandlerTarget, shadowed

if TYPE_CHECKING:
    import logging

    from ...record.codec import Entry

_ANSWERED = "; transport='logstash_async.transport.HttpTransport' or BeatsTransport waits for an answer"
_UNANSWERED = {
    "TcpTransport": "plain TCP cannot acknowledge: what the peer had not read when it died is lost unnoticed",
    "UdpTransport": "UDP cannot acknowledge: a datagram may be lost unnoticed",
}


class LogstashTarget(HandlerTarget):
    """Accepted: the transport's ``send`` returned."""

    rebuild_helps = False

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(handler)
        self.warnings += tuple(self._reasons())

    def _reasons(self) -> list[str]:
        name = type(self.handler).__name__
        if not self.handler._enable:
            return [f"{name} has enable=False: it sends nothing, and all is taken for delivered"]
        kinds = [cls.__name__ for cls in type(self.handler._transport).__mro__]
        return [f"{name}: {_UNANSWERED[kind]}{_ANSWERED}" for kind in kinds if kind in _UNANSWERED][:1]

    def describe(self) -> str:
        return f"{type(self.handler).__name__} {self.handler._host}:{self.handler._port}"

    def emit(self, entry: Entry) -> None:
        transport = self.handler._transport
        most = getattr(transport, "_max_content_length", None)
        if transport is None or most is None:
            super().emit(entry)
            return
        send = transport.send

        def whole(events: Any, **kwargs: Any) -> Any:
            if any(len(event) > most for event in events):
                raise Rejected(f"{self.label}: the event is larger than max_content_length ({most:,} bytes)")
            return send(events, **kwargs)

        with shadowed(transport, "send", whole):
            super().emit(entry)
