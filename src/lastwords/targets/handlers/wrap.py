r"""Any ``logging.Handler`` as a target, so that it tells the truth.

The problem: ``Handler.emit`` swallows its own failures and calls ``handleError``, and some failures not even that. So:

* ``handleError`` is shadowed on the instance while we deliver, and what it was called for is raised;
* an adapter per class checks what the handler never hears (an HTTP status, a refused recipient, a socket that was
  silently dropped). Adapters are found by the names in the class's MRO, so subclasses get them, and nothing is imported
  for handlers that are not used;
* a handler that cannot acknowledge at all says so in ``warnings``, at construction.

Handlers that a handler keeps among its attributes (a tee, a fallback) are its own: they are listened to as well.

A wrapped handler leaves logging's shutdown list, with its inner ones, and is closed only by the courier: otherwise
``logging.shutdown`` and dictConfig block on a hung target's lock, or close the target before the drain.

Ids: a formatter that names ``lastwords_id`` (``"%(lastwords_id)s %(message)s"``) gets the entry's id; other formatters
see nothing of ours. Text that the handler's encoding cannot take (a lone surrogate, an umlaut under ``LANG=C``) is sent
with ``\x`` escapes rather than never.
"""

from __future__ import annotations

import errno
import importlib
import logging
import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ...errors import Rejected
from ...record.replayed import render_plainly
from ..contract import Target, refuse_suspended
from .doubts import why_not

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ...record.codec import Entry


class HandlerTarget(Target):
    """Delivers to ``handler``, one record at a time. Adapters override the small steps below.

    ``rebuild_helps``: building the handler anew may revive it; False where the adapter does what it takes, because a
    new handler has forgotten what the old one knew (who has the mail already; that the file was emptied at its start).
    """

    record_at_a_time = True
    rebuild_helps: bool = True
    sends_id: bool = False  # the whole record is sent, so the id travels as an attribute of it
    _failures: list[Exception] | None = None  # while one attends to several entries

    def __init__(self, handler: logging.Handler) -> None:
        self.handler: Any = handler
        self.front = handler
        self.label = self.describe()
        self._inner_ones = inner_handlers(handler)
        for inner in self._inner_ones:
            _refuse(inner, f"{type(handler).__name__} hands records to {type(inner).__name__}: ")
        known = any(name in _ADAPTERS for name in _names(handler) if not name.startswith("logging."))
        self.warnings = tuple(
            reason
            for each in (handler, *self._inner_ones)
            if (reason := why_not(each, known=known and each is handler))
        )
        for each in (handler, *self._inner_ones):
            leave_shutdown_list(each)

    @property
    def formatter(self) -> logging.Formatter | None:
        """The handler's own."""
        formatter: logging.Formatter | None = self.handler.formatter
        return formatter

    def describe(self) -> str:
        """The destination in words, without credentials."""
        return type(self.handler).__name__

    def deliver(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.deliver_one(entry)

    def deliver_one(self, entry: Entry) -> None:
        """Let the handler emit it, and raise what went wrong."""
        self.before(entry)
        error = self._attempt(entry)
        if isinstance(error, UnicodeEncodeError):
            error = self._attempt(entry, escaping=error.encoding)
        if error is not None:
            self.failed(error)
            _refuse_too_long(error)
            raise error
        self.after(entry)

    def _attempt(self, entry: Entry, *, escaping: str = "") -> Exception | None:
        """Let the handler emit; what it raised or reported, or None."""
        if self._failures is not None:  # we attend already, to a batch
            self._failures.clear()
            return self._emit(entry, self._failures, escaping)
        with self.attending() as failures:
            return self._emit(entry, failures, escaping)

    @contextmanager
    def attending(self) -> Iterator[list[Exception]]:
        """Hold the handler's lock, and hear what it reports: the list is filled."""
        self.handler.acquire()  # first: whoever else uses the handler must find no shadow of ours
        try:
            with listening(self.handler, *self._inner_ones) as failures:
                yield failures
        finally:
            self.handler.release()

    def _emit(self, entry: Entry, failures: list[Exception], escaping: str) -> Exception | None:
        render_plainly(entry.record, self.handler.formatter)
        named = self.sends_id or "lastwords_id" in (getattr(self.handler.formatter, "_fmt", None) or "")
        try:
            if not (named or escaping):
                self.emit(entry)
            else:
                with ExitStack() as stack:
                    if escaping:
                        stack.enter_context(_escaping(self.handler, escaping))
                    if named:
                        stack.enter_context(shadowed(entry.record, "lastwords_id", entry.id))
                    self.emit(entry)
        except Exception as error:  # handed to the caller, which raises it
            return error
        return failures[0] if failures else None

    def before(self, entry: Entry) -> None:
        """Get the handler ready."""

    def emit(self, entry: Entry) -> None:
        """Let the handler emit the entry's record."""
        if type(self.handler).handle is logging.Handler.handle:
            self.handler.emit(entry.record)
            return
        # All its work may be in handle(), as NullHandler's is. The filters ran in the caller.
        with shadowed(self.handler, "filter", lambda _record: True):
            self.handler.handle(entry.record)

    def after(self, entry: Entry) -> None:
        """Raise what the handler did not notice."""

    def failed(self, error: Exception) -> None:
        """Make the handler able to try again."""

    def close(self) -> None:
        with ExitStack() as stack:
            for inner in self._inner_ones:  # nobody else closes them any more
                stack.callback(inner.close)
            self.handler.close()

    def set_formatter(self, fmt: logging.Formatter | None) -> None:
        self.handler.setFormatter(fmt)

    @property
    def drives(self) -> bool:
        """The handler has the emit() of its adapter's class: what it does is known."""
        own: Any = type(self.handler)
        plain = next(cls for cls in own.__mro__ if cls.__module__ in ("logging", "logging.handlers"))
        return bool(own.emit is plain.emit and own.handle is plain.handle)


def _refuse_too_long(error: Exception) -> None:
    """OSErrors speak of the target, except this one: a record too long for a datagram is so tomorrow."""
    if isinstance(error, OSError) and error.errno == errno.EMSGSIZE:
        raise Rejected(f"the record is too long for a datagram: {error}") from error


def inner_handlers(handler: logging.Handler) -> list[logging.Handler]:
    """What ``handler`` keeps of handlers as attributes, also in lists, tuples and dicts; and what these keep."""
    found: list[logging.Handler] = [handler]
    for each in found:  # grows meanwhile
        for value in vars(each).values():
            items = (
                value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
            )
            found.extend(item for item in items if isinstance(item, logging.Handler) and item not in found)
    return found[1:]


@contextmanager
def shadowed(instance: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of the instance, for a while."""
    attributes = vars(instance)
    had, before = name in attributes, attributes.get(name)
    setattr(instance, name, value)
    try:
        yield
    finally:
        if had:
            setattr(instance, name, before)
        else:
            delattr(instance, name)


@contextmanager
def listening(*handlers: logging.Handler) -> Iterator[list[Exception]]:
    """Collect the exceptions that ``handlers`` report to their own ``handleError``, on this thread."""
    failures: list[Exception] = []
    us = threading.get_ident()

    def ear(handler: logging.Handler) -> Callable[[logging.LogRecord], None]:
        plain = handler.handleError

        def hear(record: logging.LogRecord) -> None:
            if threading.get_ident() != us:  # somebody logs to it directly: no failure of our entry
                plain(record)
                return
            error = sys.exc_info()[1]
            if not isinstance(error, Exception):
                error = RuntimeError(f"{type(handler).__name__} called handleError: {error!r}")
            failures.append(error)

        return hear

    with ExitStack() as stack:
        for handler in handlers:
            stack.enter_context(shadowed(handler, "handleError", ear(handler)))
        yield failures


@contextmanager
def _escaping(handler: logging.Handler, encoding: str) -> Iterator[None]:
    """What ``handler`` formats has only characters that ``encoding`` knows; the others are escaped."""
    codec = encoding if encoding in ("utf-8", "latin-1", "iso8859-1") else "ascii"
    plain = handler.format

    def escaped(record: logging.LogRecord) -> str:
        return plain(record).encode(codec, "backslashreplace").decode(codec)

    with shadowed(handler, "format", escaped):
        yield


def leave_shutdown_list(handler: logging.Handler) -> None:
    """Take ``handler`` off the list that ``logging.shutdown`` and dictConfig close."""
    with logging._lock:  # type: ignore[attr-defined]
        listed = logging._handlerList  # type: ignore[attr-defined]
        listed[:] = [reference for reference in listed if reference() is not handler]


# --- adapters, by the name of the class they are for ---------------------------------------------------------

_ADAPTERS = {
    "logging.handlers.SMTPHandler": "smtp:SMTPTarget",
    "logging.handlers.HTTPHandler": "http:HTTPTarget",
    "logging.FileHandler": "stream:FileTarget",
    "logging.StreamHandler": "stream:StreamHandlerTarget",
    "logging.handlers.DatagramHandler": "socket:DatagramTarget",
    "logging.handlers.SocketHandler": "socket:SocketTarget",
    "logging.handlers.SysLogHandler": "socket:SysLogTarget",
    "logging.handlers.MemoryHandler": "memory:MemoryTarget",
    "logging.handlers.BufferingHandler": "memory:BufferingTarget",
    "watchtower.CloudWatchLogHandler": "watchtower:WatchtowerTarget",
    "rich.logging.RichHandler": "rich:RichTarget",
    "opentelemetry.sdk._logs._internal.LoggingHandler": "opentelemetry:OpenTelemetryTarget",
    "opentelemetry.instrumentation.logging.handler.LoggingHandler": "opentelemetry:OpenTelemetryTarget",
    "django.utils.log.AdminEmailHandler": "django:AdminEmailTarget",
    "graypy.handler.GELFHTTPHandler": "gelf:GelfHTTPTarget",
    "pygelf.handlers.GelfHttpHandler": "gelf:GelfHTTPTarget",
    "pygelf.handlers.GelfHttpsHandler": "gelf:GelfHTTPTarget",
    "splunk_handler.SplunkHandler": "splunk:SplunkTarget",
    "logstash_async.handler.SynchronousLogstashHandler": "logstash:LogstashTarget",
}


def _names(handler: logging.Handler) -> list[str]:
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(handler).__mro__]


def _refuse(handler: logging.Handler, prefix: str = "") -> None:
    """ValueError or TypeError for what can never be a target."""
    names = _names(handler)
    if "lastwords.handler.DurableHandler" in names:  # the recursion guard would drop every record on its way there
        raise ValueError(f"{prefix}target must not be a DurableHandler itself: give it the inner handler")
    if "logging.handlers.NTEventLogHandler" in names:
        raise ValueError(f"{prefix}target must not be an NTEventLogHandler: lastwords runs on POSIX only")
    refuse_suspended(handler.emit)
    refuse_suspended(handler.handle)


def wrap(handler: logging.Handler) -> HandlerTarget:
    """The target for ``handler``. ValueError if it can never be one."""
    _refuse(handler)
    for name in _names(handler):
        adapter = _ADAPTERS.get(name)
        if adapter is None:
            continue
        module, _, cls = adapter.partition(":")
        try:
            target: HandlerTarget = getattr(importlib.import_module(f".{module}", __package__), cls)(handler)
        except AttributeError:  # a subclass that did not call super().__init__(), so it is not what its class says
            break
        return target
    return HandlerTarget(handler)
