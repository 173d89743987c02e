"""The span of the logging call, for what speaks OpenTelemetry: read there, journaled, and put back at delivery.

OpenTelemetry keeps it in a context variable, which is another one in the thread that delivers, and gone in another
process. It is journaled as extras, under the names that OpenTelemetry's own logging instrumentation uses; what has them
already (that instrumentation, a ``prepare``) keeps its own.
"""

from __future__ import annotations

import copy
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator, Mapping

TRACE, SPAN, SAMPLED = "otelTraceID", "otelSpanID", "otelTraceSampled"


def with_span(record: logging.LogRecord) -> logging.LogRecord:
    """``record``, or a copy that knows the span it was logged in."""
    api = sys.modules.get("opentelemetry.trace")  # without that import there is no span
    if api is None or hasattr(record, TRACE):
        return record
    span = api.get_current_span().get_span_context()
    if not span.is_valid:
        return record
    record = copy.copy(record)  # other handlers get the same one
    found = {TRACE: f"{span.trace_id:032x}", SPAN: f"{span.span_id:016x}", SAMPLED: bool(span.trace_flags.sampled)}
    record.__dict__.update(found)
    return record


@contextmanager
def put_back(extra: Mapping[str, Any]) -> Iterator[None]:
    """What reads the current span in here finds the one of the logging call, or none."""
    from opentelemetry import context, trace  # noqa: PLC0415 - of the handler that is delivered to

    span = trace.INVALID_SPAN
    try:
        numbers = int(extra[TRACE], 16), int(extra[SPAN], 16)
    except (KeyError, TypeError, ValueError):
        pass  # logged outside of any, or somebody else's attributes
    else:
        flags = trace.TraceFlags(bool(extra.get(SAMPLED)))
        span = trace.NonRecordingSpan(trace.SpanContext(*numbers, is_remote=True, trace_flags=flags))
    token = context.attach(trace.set_span_in_context(span, context.Context()))
    try:
        yield
    finally:
        context.detach(token)
