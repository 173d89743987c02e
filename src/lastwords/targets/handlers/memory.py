"""MemoryHandler and other BufferingHandlers: their buffers lose nothing, because the journal is the better buffer.

stdlib's MemoryHandler empties its buffer even when the inner handler fails, and loses it with the process. So
``capacity`` and ``flushLevel`` mean nothing here: each record goes straight to the inner handler, through its adapter.
What was in the buffer before the handler was wrapped goes first.

Other children of BufferingHandler (the ``BufferingSMTPHandler`` of the cookbook) do their work in ``flush()``. They
get as many records as their ``capacity`` says and are flushed; accepted is what was flushed.
"""

from __future__ import annotations

import logging.handlers
from typing import TYPE_CHECKING

from ...errors import TryAgain
from ...runtime.stderr import say
from .wrap import HandlerTarget, listening, shadowed, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...record.codec import Entry


class MemoryTarget(HandlerTarget):
    """Accepted: by the inner handler."""

    def __init__(self, handler: logging.handlers.MemoryHandler) -> None:
        if handler.target is None:
            raise ValueError("target: the MemoryHandler has no target of its own, so nothing would ever be delivered")
        self._inner = wrap(handler.target)
        super().__init__(handler)
        self.front = _Both(handler, self._inner.front or handler.target)
        self.warnings = tuple(dict.fromkeys(self.warnings + self._inner.warnings))
        self.record_at_a_time, self.batch_size = self._inner.record_at_a_time, self._inner.batch_size
        self.rebuild_helps = self._inner.rebuild_helps

    def describe(self) -> str:
        return f"{type(self.handler).__name__} for {self._inner.label}"

    def deliver(self, entries: Sequence[Entry]) -> None:
        self._deliver_early()
        self._inner.deliver(entries)

    def _deliver_early(self) -> None:
        """What was buffered before we came; these records are in no journal."""
        early, inner = self.handler.buffer, self._inner.handler
        while early:
            with listening(inner) as failures:
                inner.handle(early[0])
            if failures:
                raise failures[0]
            del early[0]

    def close(self) -> None:
        try:
            self._deliver_early()
        except Exception as error:
            count = len(self.handler.buffer)
            what = (
                "1 record from before it was wrapped is"
                if count == 1
                else f"{count} records from before it was wrapped are"
            )
            say(f"{self.label}: {what} lost: {error}")
        finally:
            self._inner.close()

    @property
    def formatter(self) -> logging.Formatter | None:
        return self._inner.formatter

    def set_formatter(self, fmt: logging.Formatter | None) -> None:
        self._inner.set_formatter(fmt)

    def after_fork_in_child(self) -> None:
        self._inner.after_fork_in_child()


class _Both(logging.NullHandler):
    """The outer handler's level and filters, then the inner one's filters, as when a MemoryHandler flushes.

    Both run in the caller: a filter that looks at the request's context finds nothing in the courier.
    """

    def __init__(self, outer: logging.Handler, inner: logging.Handler) -> None:
        super().__init__()
        self._outer, self._inner = outer, inner

    @property
    def level(self) -> int:
        """Of the outer handler, which may change at any time; stdlib asks the inner one for its filters only."""
        return self._outer.level

    @level.setter
    def level(self, value: int) -> None:
        """Handler.__init__ sets one."""

    def filter(self, record: logging.LogRecord) -> bool | logging.LogRecord:  # type: ignore[override]
        passed: bool | logging.LogRecord = self._outer.filter(record)
        if isinstance(passed, logging.LogRecord):  # Python 3.12 and newer: a filter may replace the record
            record = passed
        return self._inner.filter(record) if passed else False


class BufferingTarget(HandlerTarget):
    """Accepted: flushed."""

    record_at_a_time = False
    narrows = False  # the handler's capacity says how many it wants

    def deliver(self, entries: Sequence[Entry]) -> None:
        size = max(1, int(getattr(self.handler, "capacity", 1)))
        for done in range(0, len(entries), size):
            try:
                self._flush(entries[done : done + size])
            except Exception as error:
                if not done:
                    raise
                raise TryAgain(f"{self.label}: {done} of {len(entries)} flushed: {error}", accepted=done) from error

    def _flush(self, entries: Sequence[Entry]) -> None:
        handler = self.handler
        before = list(handler.buffer)
        with listening(handler, *self._inner_ones) as failures, shadowed(handler, "shouldFlush", lambda _record: False):
            try:
                for entry in entries:
                    handler.acquire()
                    try:
                        handler.emit(entry.record)
                    finally:
                        handler.release()
                handler.flush()
            except BaseException:
                handler.buffer = before  # ours are in the journal and come again
                raise
        if failures or handler.buffer:
            handler.buffer = before
            raise failures[0] if failures else RuntimeError(f"{self.label}: flush() left its buffer full")
