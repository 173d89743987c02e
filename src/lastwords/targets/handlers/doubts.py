"""Handlers that cannot acknowledge, or hide that they failed: why, and which knob helps. Said at construction.

Well-known ones are listed by name; the others are looked at: see ``threads`` and ``swallowing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

_IN_MEMORY = (
    "{} hands records to a background thread's memory and cannot acknowledge: what is there dies with the process"
)
# That thread is out of reach of our guard: what its client logs would enter the journal, and so on without end.
_IGNORE = "; what its client logs on that thread is kept out of the journal by ignore_loggers={!r}"


def _in_memory(what: str, *loggers: str, hint: str = "") -> str:
    return _IN_MEMORY.format(what) + hint + (_IGNORE.format(loggers) if loggers else "")


def _watchtower(handler: Any) -> str:
    if not getattr(handler, "use_queues", True):
        return ""
    return _in_memory("watchtower's handler", "botocore", "urllib3", hint="; use_queues=False sends at once")


def _splunk(handler: Any) -> str:
    if getattr(handler, "flush_interval", 1) <= 0:
        return ""
    hint = ", and after retry_count tries it gives up silently; flush_interval=0 sends at once"
    return _in_memory("splunk_handler's SplunkHandler", "urllib3", "requests", hint=hint)


_OTLP = "; the target otlp+http:// waits for the collector's answer"

_UNACKNOWLEDGING: dict[str, str | Callable[[Any], str]] = {
    "logging.handlers.QueueHandler": _in_memory("QueueHandler", hint="; give the listener's handler instead"),
    "sentry_sdk.": _in_memory("sentry's handler", "sentry_sdk", "urllib3"),
    "raven.": _in_memory("raven's handler", "sentry", "raven"),
    "opentelemetry.": _in_memory("OpenTelemetry's handler", "opentelemetry", "urllib3", hint=_OTLP),
    "opencensus.": _in_memory("OpenCensus' handler", "opencensus", "urllib3"),
    "azure.monitor.": _in_memory("Azure Monitor's handler", "azure", "urllib3"),
    "google.cloud.logging": _in_memory("google-cloud-logging's handler", "google", "urllib3"),
    "watchtower.": _watchtower,
    "splunk_handler.": _splunk,
    "logstash_async.handler.AsynchronousLogstashHandler": _in_memory(
        "python-logstash-async's handler", "logstash_async", hint="; SynchronousLogstashHandler sends at once"
    ),
    "logzio.": _in_memory("logzio's handler", "logzio", "urllib3"),
    "seqlog.": _in_memory("seqlog's handler", "seqlog", "urllib3"),
    "loki_logger_handler.": _in_memory("loki_logger_handler's handler", "urllib3", "LokiHandlerDebug"),
    "coralogix.": _in_memory("Coralogix' handler", "coralogix", "urllib3"),
    "cmreslogging.": _in_memory("CMRESHandler", "elasticsearch", "urllib3"),
    "rollbar.": _in_memory("Rollbar's handler", "rollbar", "urllib3"),
    "bugsnag.": _in_memory("Bugsnag's handler", "bugsnag"),
    "newrelic.": _in_memory("New Relic's handler", "newrelic"),
    "fluent.": "fluent-logger keeps what it could not send in memory and reports nothing: it cannot acknowledge",
    "logging.handlers.DatagramHandler": "UDP cannot acknowledge: a datagram may be lost unnoticed",
}

# Looked at by people: what these swallow is a failed rotation, and they write all the same.
_HONEST = ("concurrent_log_handler.",)


def why_not(handler: logging.Handler, *, known: bool = False) -> str:
    """Why ``handler`` cannot be trusted; "" if nothing is known against it. ``known``: an adapter knows the class."""
    for cls in type(handler).__mro__:
        name = f"{cls.__module__}.{cls.__qualname__}"
        for prefix, reason in _UNACKNOWLEDGING.items():
            if name == prefix or (prefix.endswith((".", "logging")) and name.startswith(prefix)):
                return reason(handler) if callable(reason) else reason
    return "" if known else _looked_at(handler)


def _looked_at(handler: logging.Handler) -> str:
    emit: Any = type(handler).emit
    if emit.__module__ in ("logging", "logging.handlers") or f"{emit.__module__}.".startswith(_HONEST):
        return ""
    from .swallowing import hides  # noqa: PLC0415 - for handlers of others only
    from .threads import background  # noqa: PLC0415

    name = type(handler).__name__
    where = background(handler)
    if where:
        said = f"{name} keeps {where}: if emit() only hands the record to it, it cannot acknowledge"
        return f"{said}; name the loggers of its client in ignore_loggers"
    hidden = hides(handler)
    return f"{name}.{hidden}" if hidden else ""
