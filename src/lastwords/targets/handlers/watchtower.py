"""watchtower's CloudWatchLogHandler: what CloudWatch answered decides.

With ``use_queues=True`` it batches in its own memory and cannot acknowledge, which is said at construction. Without, it
sends each record at once, but only *warns* when CloudWatch refuses it: here its client is shadowed while we deliver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import Rejected
from .wrap import HandlerTarget, shadowed

if TYPE_CHECKING:
    from ...record.codec import Entry


class _Listening:
    """The boto3 client, remembering what became of the last ``put_log_events``."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.error: Exception | None = None
        self.answer: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_log_events(self, **kwargs: Any) -> Any:
        try:
            self.answer = self._client.put_log_events(**kwargs)
        except Exception as error:
            self.error = error
            raise
        self.error = None
        return self.answer


class WatchtowerTarget(HandlerTarget):
    """Accepted: CloudWatch took it (``use_queues=False``)."""

    rebuild_helps = False

    def emit(self, entry: Entry) -> None:
        client = _Listening(self.handler.cwl_client)
        with shadowed(self.handler, "cwl_client", client):
            super().emit(entry)
        if client.error is not None:
            raise client.error
        if client.answer.get("rejectedLogEventsInfo"):
            raise Rejected(f"CloudWatch rejected it: {client.answer['rejectedLogEventsInfo']}")
