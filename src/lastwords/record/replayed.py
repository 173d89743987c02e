"""A LogRecord of an Entry's payload: it reads like the live one, and is inert.

What is of a foreign class in it is a stand-in.
"""

from __future__ import annotations

import logging
import types
from typing import Any

import msgspec

from .exceptions import rebuild
from .payload import HAS_TASK_NAME, RESERVED, Payload, derive, level_name


class _Method:
    """A method that an instance attribute of the same name does not shadow (an extra called getMessage)."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self._function if instance is None else types.MethodType(self._function, instance)

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._function.__name__] = value


class ReplayedRecord(logging.LogRecord):
    """A LogRecord whose ``__dict__`` is a live one's, and whose text is the one that was logged.

    What it needs beyond that lives in a slot, as HTTPHandler, SocketHandler and the JSON
    formatters send the whole ``__dict__``.
    """

    __slots__ = ("_lastwords_rendered", "_lastwords_text")
    _lastwords_text: tuple[str, Any, Any]
    _lastwords_rendered: str | None

    def getMessage(self) -> str:  # noqa: N802
        text, msg, args = self._lastwords_text
        # Whoever sets msg or args (QueueHandler.prepare, a filter) wants to see the change.
        if self.msg is msg and self.args is args:
            return text
        return super().getMessage()


ReplayedRecord.getMessage = _Method(ReplayedRecord.getMessage)  # type: ignore[method-assign, assignment]


def replay(p: Payload, created: float, level: int) -> logging.LogRecord:
    """The record of payload ``p``, as a formatter or a target reads it."""
    record = ReplayedRecord.__new__(ReplayedRecord)
    message = p.message
    msg = message if p.msg is msgspec.UNSET else p.msg
    filename, module = p.filename, p.module
    if filename is None and module is None and p.pathname is not None:
        filename, module = derive(p.pathname)
    fields = record.__dict__
    fields["name"] = p.logger
    fields["msg"] = msg
    fields["args"] = p.args
    fields["levelname"] = p.levelname if p.levelname is not None else level_name(level)
    fields["levelno"] = level
    fields["pathname"] = p.pathname
    fields["filename"] = filename
    fields["module"] = module
    fields["exc_info"] = None if p.exc_info is None else rebuild(p.exc_info, p.rendered)
    fields["exc_text"] = p.exc_text
    fields["stack_info"] = p.stack_info
    fields["lineno"] = p.lineno
    fields["funcName"] = p.funcName
    fields["created"] = created
    fields["msecs"] = p.msecs
    fields["relativeCreated"] = p.relativeCreated
    fields["thread"] = p.thread
    fields["threadName"] = p.threadName
    fields["processName"] = p.processName
    fields["process"] = p.process
    if HAS_TASK_NAME:
        fields["taskName"] = p.taskName
    if p.odd is not None:
        message = p.odd.get("message", message)
        if p.msg is msgspec.UNSET:
            fields["msg"] = message
        fields.update((key, value) for key, value in p.odd.items() if key in fields)
    if p.extra is not None:
        if RESERVED.isdisjoint(p.extra):
            fields.update(p.extra)
        else:
            fields.update((key, value) for key, value in p.extra.items() if key not in RESERVED)
    record._lastwords_rendered = p.rendered if p.odd is None else p.odd.get("rendered", p.rendered)
    record._lastwords_text = (message, fields["msg"], fields["args"])
    return record


def rendered(record: logging.LogRecord) -> str:
    """The traceback of a record as text, as it was when it was logged; "" if it has none."""
    text = record.exc_text or getattr(record, "_lastwords_rendered", None)
    if text or not record.exc_info:
        return str(text or "")
    return logging.Formatter().formatException(record.exc_info)


def render_plainly(record: logging.LogRecord, formatter: logging.Formatter | None) -> None:
    """Let a formatter that renders exceptions as logging does find the text of the live one, to the last caret.

    One that has its own way must not find any: ``Formatter.format`` asks ``formatException`` only if there is none.
    """
    text = getattr(record, "_lastwords_rendered", None)
    if text is None or record.exc_text is not None:
        return
    kind = logging.Formatter if formatter is None else type(formatter)
    own = () if formatter is None else formatter.__dict__
    if all(getattr(kind, name) is getattr(logging.Formatter, name) and name not in own for name in _PLAIN):
        record.exc_text = text


_PLAIN = ("format", "formatException", "formatStack")
