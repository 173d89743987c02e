"""splunk_handler's SplunkHandler: what the HTTP Event Collector answered decides.

With ``flush_interval`` above 0 it queues in its own memory and gives up silently, which is said at construction. With 0
it sends each record at once, but prints what went wrong and goes on: here its session is listened to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .http import judge
from .wrap import HandlerTarget, shadowed

if TYPE_CHECKING:
    from ...record.codec import Entry


class SplunkTarget(HandlerTarget):
    """Accepted: Splunk took it (``flush_interval=0``)."""

    rebuild_helps = False

    def describe(self) -> str:
        return f"{type(self.handler).__name__} {self.handler.url}"

    def emit(self, entry: Entry) -> None:
        if self.handler.flush_interval > 0:
            super().emit(entry)
            return
        said: list[Any] = []
        post = self.handler.session.post

        def listened(*args: Any, **kwargs: Any) -> Any:
            try:
                said.append(post(*args, **kwargs))
            except Exception as error:
                said.append(error)
                raise
            return said[-1]

        with shadowed(self.handler.session, "post", listened):
            super().emit(entry)
        answer = said[-1] if said else RuntimeError(f"{self.label}: it sent nothing: it could not format the record")
        if isinstance(answer, Exception):
            raise answer
        judge(answer.status_code, answer.reason, answer.headers.get("Retry-After"))
