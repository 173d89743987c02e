"""The span of the logging call, for what speaks OpenTelemetry: read there, journaled, and put back at delivery.

OpenTelemetry keeps it in a context variable, which is another one in the thread that delivers, and gone in another
process. It is journaled as extras, under the names that OpenTelemetry's own logging instrumentation uses; what has them
already (that instrumentation, a ``prepare``) keeps its own. The flags as they are (sampled is one of them) go beside
them, under a name of ours: by it we know at delivery that the application has not added these extras, and hide them.
"""

from __future__ import annotations

import copy
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator, Mapping

TRACE, SPAN, SAMPLED, FLAGS = "otelTraceID", "otelSpanID", "otelTraceSampled", "otelTraceFlags"


def with_span(record: logging.LogRecord) -> logging.LogRecord:
    """``record``, or a copy that knows the span it was logged in."""
    api = sys.modules.get("opentelemetry.trace")  # without that import there is no span
    if api is None or hasattr(record, TRACE):
        return record
    span = api.get_current_span().get_span_context()
    if not span.is_valid:
        return record
    record = copy.copy(record)  # other handlers get the same one
    flags = int(span.trace_flags)
    found = {TRACE: f"{span.trace_id:032x}", SPAN: f"{span.span_id:016x}", SAMPLED: bool(flags & 1), FLAGS: flags}
    record.__dict__.update(found)
    return record


def flags_of(extra: Mapping[str, Any]) -> int:
    """The span's flags, one byte."""
    flags = extra.get(FLAGS)
    return flags & 0xFF if type(flags) is int else int(bool(extra.get(SAMPLED)))


@contextmanager
def put_back(record: logging.LogRecord) -> Iterator[None]:
    """What reads the current span in here finds the one of the logging call, or none."""
    from opentelemetry import context, trace  # noqa: PLC0415 - of the handler that is delivered to

    span, extra = trace.INVALID_SPAN, dict(record.__dict__)
    try:
        numbers = int(extra[TRACE], 16), int(extra[SPAN], 16)
    except (KeyError, TypeError, ValueError):
        pass  # logged outside of any, or somebody else's attributes
    else:
        flags = trace.TraceFlags(flags_of(extra))
        span = trace.NonRecordingSpan(trace.SpanContext(*numbers, is_remote=True, trace_flags=flags))
    ours = (TRACE, SPAN, SAMPLED, FLAGS) if FLAGS in extra else ()
    token = context.attach(trace.set_span_in_context(span, context.Context()))
    try:
        for name in ours:
            record.__dict__.pop(name, None)
        yield
    finally:
        record.__dict__.update({name: extra[name] for name in ours if name in extra})
        context.detach(token)
