"""OpenTelemetry's LoggingHandler: it finds the span of the logging call.

It asks for the current span, which is another one, or none, where we deliver. As a rule it hands records to a queue in
memory, which is said at construction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..span import put_back, with_span
from .wrap import HandlerTarget

if TYPE_CHECKING:
    from ...record.codec import Entry


class OpenTelemetryTarget(HandlerTarget):
    """As any handler, in the context of the logging call."""

    in_the_call = staticmethod(with_span)

    def emit(self, entry: Entry) -> None:
        with put_back(entry.record):
            super().emit(entry)
