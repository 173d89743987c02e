"""The slow way to a payload: any record at all, whatever its attributes hold.

Total: each value goes through the guards of write_values.py, and if even that fails (the
recursion limit, no memory) a constant payload says so. Only exceptions that
runtime/signals.py recognises as the application's own are let through.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from ..runtime.jsonbytes import to_json
from ..runtime.signals import pass_on
from .exceptions import capture
from .foreign import Seen
from .payload import EXPECTED, LEVELS, MAX_PAYLOAD, RESERVED, Payload, checksum, derive
from .write_values import Writer, clean, guarded, is_foreign, type_name

# With the numbers that formatters ask for: what no formatter takes would hold up the line.
_LAST_RESORT = (
    '{"logger":"lastwords","message":"<lastwords: a record that could not be encoded>","pathname":"","lineno":0,'
    '"funcName":"","process":0,"thread":0,"msecs":0.0,"relativeCreated":0.0}'
)
_FAR = 1e15  # seconds; beyond it no clock counts, and struct and SQLite have no use for it


def encode_any(record: logging.LogRecord) -> tuple[float, int, str, int]:
    """Return (created, level, payload, checksum) of any record."""
    created, level = time.time(), 0
    try:
        fields = dict(record.__dict__)
        created, level = _columns(fields, created)
        encoded = to_json(_describe(record, fields, created, level))
        # The writer's budget is smaller; this is the net below it.
        payload = encoded.decode() if len(encoded) <= MAX_PAYLOAD else _LAST_RESORT
    except BaseException as exc:
        pass_on(exc)
        payload = _LAST_RESORT
    return created, level, payload, checksum(created, level, payload)


def _columns(fields: dict[str, Any], now: float) -> tuple[float, int]:
    """Return what the two number columns can hold of ``created`` and ``levelno``."""
    created, level = fields.get("created"), fields.get("levelno")
    exact: float | None = None
    if issubclass(type(created), float):
        exact = float.__float__(created)  # type: ignore[arg-type]
    elif issubclass(type(created), int):
        exact = int.__int__(created)  # type: ignore[arg-type]
    if exact is not None and -_FAR < exact < _FAR:
        now = float(exact)
    if issubclass(type(level), int):
        return now, max(-(1 << 62), min(int.__int__(level), 1 << 62))  # type: ignore[arg-type]
    return now, 0


def _describe(record: logging.LogRecord, fields: dict[str, Any], created: float, level: int) -> Payload:
    """Return the payload of any record at all."""
    writer = Writer()
    p = Payload("", "")
    odd: dict[str, Any] = {}
    p.message, exact = _text(_message(record, fields, writer), writer)
    if exact is not None:
        odd["message"] = exact
    _describe_standard(p, fields, odd, writer)
    writer.stubs = True
    _describe_arguments(p, fields, odd, writer)
    writer.stubs = False
    p.exc_info = capture(fields.get("exc_info"), writer)
    if p.exc_info is not None and p.exc_text is None and "exc_text" not in odd:
        p.rendered, exact = _text(guarded(render, fields["exc_info"]), writer)
        if exact is not None:
            odd["rendered"] = exact
    for name, column in (("levelno", level), ("created", created)):
        value = fields.get(name)
        if type(value) is not type(column) or value != column:
            odd[name] = writer.value(value)
    if p.levelname == LEVELS.get(level):
        p.levelname = None
    if p.pathname is not None and (p.filename, p.module) == derive(p.pathname):
        p.filename = p.module = None
    extra = {key: value for key, value in fields.items() if key not in RESERVED}
    p.extra = writer.value(extra) if extra else None
    p.odd = odd or None
    return p


def _message(record: logging.LogRecord, fields: dict[str, Any], writer: Writer) -> str:
    """Return what getMessage says; if it raises, the template, the arguments and why."""
    try:
        if type(record) is logging.LogRecord:
            text = _formatted(fields, writer)
            if text is not None:
                return text
        text = record.getMessage()
        if issubclass(type(text), str):
            return str.__str__(text)
        return guarded(str, text)
    except BaseException as exc:
        pass_on(exc)
        template, args = guarded(str, fields.get("msg")), guarded(repr, _all_watched(fields.get("args"), writer))
        return f"{template} {args} <lastwords: formatting raised {type_name(exc)}: {guarded(str, exc)}>"


def _formatted(fields: dict[str, Any], writer: Writer) -> str | None:
    """What ``LogRecord.getMessage`` would say, noting how foreign values were shown; None: ask it."""
    msg, args = fields["msg"], fields.get("args")
    if is_foreign(msg):
        seen = writer.seen[id(msg)] = Seen(msg)
        msg = str(seen)
    elif type(msg) is not str:
        is_flat = type(msg) is dict and _NESTED.isdisjoint(map(type, msg.values()))  # else it may be in itself
        msg = str(_all_watched(msg, writer) if is_flat else msg)
    if not args:
        return str(msg)
    try:
        writer.watched = True
        if type(args) is tuple or type(args) is dict:
            return str(msg % _all_watched(args, writer))
    except BaseException as exc:  # the real one says so in its own words
        pass_on(exc)
    writer.watched = False
    return None


_NESTED = frozenset({dict, list, tuple, set, frozenset})


def _all_watched(values: Any, writer: Writer) -> Any:
    """The same, showing alike, with foreign values that remember how they were shown."""
    if type(values) is tuple:
        return tuple([_watched(value, writer) for value in values])
    if type(values) is dict:
        return {key: _watched(value, writer) for key, value in values.items()}
    return values


def _watched(value: Any, writer: Writer) -> Any:
    if not is_foreign(value):
        return value
    return writer.seen.setdefault(id(value), Seen(value))


def render(exc_info: Any) -> str:
    """The traceback as text, as logging writes it."""
    return logging.Formatter().formatException(exc_info)


def _text(text: str, writer: Writer) -> tuple[str, Any]:
    """Return text fit for SQLite, and the exact value if that differs (lone surrogates)."""
    shown = clean(text)
    return writer.text(shown), None if shown is text else writer.value(text)


def _describe_standard(p: Payload, fields: dict[str, Any], odd: dict[str, Any], writer: Writer) -> None:
    name = fields.get("name")
    p.logger, exact = _text(guarded(str, name), writer)
    if type(name) is not str:
        odd["name"] = writer.value(name)
    elif exact is not None:
        odd["name"] = exact
    for key, kind in EXPECTED.items():
        if key not in fields or key not in RESERVED:
            continue
        value = fields[key]
        if value is None:
            setattr(p, key, None)
        elif type(value) is str and kind is str:
            text, exact = _text(value, writer)
            setattr(p, key, text)
            if exact is not None:
                odd[key] = exact
        else:
            plain = writer.value(value)
            if type(plain) is kind:
                setattr(p, key, plain)
            else:
                odd[key] = plain


def _describe_arguments(p: Payload, fields: dict[str, Any], odd: dict[str, Any], writer: Writer) -> None:
    args = fields.get("args", ())
    if type(args) is tuple:
        p.args = tuple(writer.value(list(args)))
    elif type(args) is dict and args:
        p.args = writer.value(args)
    else:
        odd["args"] = writer.value(args)
    writer.stubs = False
    msg = fields.get("msg")
    if type(msg) is dict and msg.get("exc_info") is True and sys.exc_info()[1] is not None:
        msg = {**msg, "exc_info": sys.exc_info()}  # structlog's: at delivery there is no current exception
    if type(msg) is not str or msg != p.message:
        p.msg = writer.value(msg)
