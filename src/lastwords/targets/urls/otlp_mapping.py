"""An entry as an OTLP log record, in protobuf. Pure and total; the same entry gives the same bytes in every try.

============================================  =====================================================================
message                                       body
logger                                        name of the scope
id                                            ``log.record.uid``
level                                         severity: DEBUG 5, INFO 9, WARNING 13, ERROR 17, CRITICAL 21; its name
pathname, lineno, funcName                    ``code.file.path``, ``code.line.number``, ``code.function.name``
exception                                     ``exception.type``, ``exception.message``, ``exception.stacktrace``
stack_info                                    ``code.stacktrace``
thread, process, task                         ``thread.id``, ``thread.name``, ``process.pid``, ``python.task.name``
otelTraceID, otelSpanID, otelTraceSampled     trace id, span id and flags, as OpenTelemetry's logging instrumentation
                                              or ``span`` wrote them in the logging call: later the span is gone
all other extras                              attributes of their names
============================================  =====================================================================

The time has microseconds; the digits behind them are the seq's, so that two records of one microsecond are two for
receivers that take equal time and text for a repetition (Loki), and a repetition is one. The observed time is the same.
None is left out. What OTLP cannot say becomes text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..span import flags_of
from ..wording import trace
from .protobuf import double, fields, fixed64, sized, varint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...record.codec import Entry

_DEEPEST = 20
_TRACE = frozenset({"otelTraceID", "otelSpanID", "otelTraceSampled", "otelTraceFlags", "otelServiceName"})
_LARGEST = 2**64 - 1


def severity(level: int) -> int:
    """1 to 24: four numbers each for trace, debug, info, warn, error, fatal; 0 for none."""
    if level < 10:
        return 1 if level > 0 else 0
    tens, ones = divmod(min(level, 59), 10)
    return 4 * tens + 1 + min(ones, 3)


def log_record(entry: Entry) -> bytes:
    """A LogRecord, as a field of the records of its scope."""
    record = entry.record
    nano = min(max(0, round(entry.created * 1e6) * 1000 + entry.seq % 1000), _LARGEST)
    parts = [
        fixed64(b"\x09", nano),
        b"\x10" + varint(severity(entry.level)),
        sized(b"\x1a", _text(record.levelname)),
        sized(b"\x2a", any_value(entry.message)),
    ]
    parts += [sized(b"\x32", key_value(key, value)) for key, value in _attributes(entry).items()]
    parts += _span(entry.extra)
    parts.append(fixed64(b"\x59", nano))
    return sized(b"\x12", b"".join(parts))


def request(entries: Sequence[Entry], records: Sequence[bytes], resource: Mapping[str, Any]) -> bytes:
    """An ExportLogsServiceRequest of the ``records`` of ``entries``."""
    scopes: dict[str, list[bytes]] = {}
    for entry, record in zip(entries, records, strict=True):
        scopes.setdefault(entry.logger, []).append(record)
    attributes = b"".join([sized(b"\x0a", key_value(key, value)) for key, value in resource.items()])
    parts = [sized(b"\x0a", attributes)]
    for name, of_scope in scopes.items():
        scope = sized(b"\x0a", sized(b"\x0a", _text(name)))
        parts.append(sized(b"\x12", scope + b"".join(of_scope)))
    return sized(b"\x0a", b"".join(parts))


def _attributes(entry: Entry) -> dict[str, Any]:
    record = entry.record
    found: dict[str, Any] = {
        "log.record.uid": entry.id,
        "code.file.path": record.pathname or None,
        "code.line.number": record.lineno if record.pathname else None,
        "code.function.name": record.funcName,
        "code.stacktrace": record.stack_info,
        "thread.id": record.thread,
        "thread.name": record.threadName,
        "process.pid": record.process,
        "python.task.name": getattr(record, "taskName", None),
    }
    if record.exc_info and record.exc_info[0] is not None:
        kind, value, _ = record.exc_info
        found["exception.type"] = f"{kind.__module__}.{kind.__qualname__}"
        found["exception.message"] = said(value)
        found["exception.stacktrace"] = trace(entry)
    for key, value in entry.extra.items():
        if key not in _TRACE:
            found.setdefault(key, value)
    return {key: value for key, value in found.items() if value is not None}


def _span(extra: Mapping[str, Any]) -> list[bytes]:
    parts = []
    flags = flags_of(extra)
    if flags:
        parts.append(bytes((0x45, flags, 0, 0, 0)))
    for key, name, digits in ((b"\x4a", "otelTraceID", 32), (b"\x52", "otelSpanID", 16)):
        value = extra.get(name)
        if isinstance(value, str) and len(value) == digits:
            try:
                raw = bytes.fromhex(value)
            except ValueError:
                continue  # somebody else's attribute of that name
            if any(raw) and 2 * len(raw) == digits:
                parts.append(sized(key, raw))
    return parts


def any_value(value: Any, depth: int = 0) -> bytes:
    """An AnyValue."""
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return b"\x18" + varint(value & _LARGEST)
    if isinstance(value, float):
        return double(b"\x21", value)
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            items = [sized(b"\x0a", key_value(key, item, depth + 1)) for key, item in value.items()]
            return sized(b"\x32", b"".join(items))
        if isinstance(value, list | tuple | set | frozenset):
            return sized(b"\x2a", b"".join([sized(b"\x0a", any_value(item, depth + 1)) for item in value]))
        if isinstance(value, bytes | bytearray):
            return sized(b"\x3a", bytes(value))
    return sized(b"\x0a", _text(value))


def key_value(key: Any, value: Any, depth: int = 0) -> bytes:
    """A KeyValue."""
    return sized(b"\x0a", _text(key)) + sized(b"\x12", any_value(value, depth))


def said(value: Any) -> str:
    """``value`` as text, whatever its ``__str__`` does."""
    try:
        return str(value)
    except Exception as error:  # somebody's __str__, or an int of more digits than Python converts
        return f"<{type(value).__name__}: {type(error).__name__}>"


def _text(value: Any) -> bytes:
    text = value if type(value) is str else said(value)
    return text.encode("utf-8", "backslashreplace")


# --- answers -------------------------------------------------------------------------------------------------------


def partial_success(data: bytes) -> tuple[int, str]:
    """How many records an ExportLogsServiceResponse says were rejected, and why. ValueError if it is not one."""
    rejected, message = 0, ""
    for number, value in fields(data):
        if number == 1 and isinstance(value, bytes):
            for inner, part in fields(value):
                if inner == 1 and isinstance(part, int):
                    rejected = part
                elif inner == 2 and isinstance(part, bytes):
                    message = part.decode("utf-8", "replace")
    return rejected, message


def status_message(data: bytes) -> str:
    """The message of a google.rpc.Status, which errors carry. ValueError if it is not one."""
    texts = [value for number, value in fields(data) if number == 2 and isinstance(value, bytes)]
    return texts[-1].decode("utf-8", "replace") if texts else ""
