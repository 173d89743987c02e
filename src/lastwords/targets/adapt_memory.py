"""MemoryHandler: straight through to what it would have flushed to.

Its buffer is emptied even when the inner handler fails, and lost with the process; the journal is the better buffer. So
``capacity`` and ``flushLevel`` mean nothing here: each record goes to the inner handler at once, through its adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .handlers import HandlerTarget, leave_shutdown_list, wrap

if TYPE_CHECKING:
    import logging.handlers
    from collections.abc import Sequence

    from ..record import Entry


class MemoryTarget(HandlerTarget):
    """Accepted: by the inner handler."""

    def __init__(self, handler: logging.handlers.MemoryHandler) -> None:
        if handler.target is None:
            raise ValueError("target: the MemoryHandler has no target of its own, so nothing would ever be delivered")
        self._inner = wrap(handler.target)
        super().__init__(handler)
        leave_shutdown_list(handler.target)
        self.warnings += self._inner.warnings

    def describe(self) -> str:
        return f"{type(self.handler).__name__} for {self._inner.label}"

    def deliver(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            # MemoryHandler.flush() calls target.handle(), which filters.
            if self._inner.handler.filter(entry.record):
                self._inner.deliver([entry])

    def close(self) -> None:
        self._inner.close()

    def set_formatter(self, fmt: logging.Formatter | None) -> None:
        self._inner.set_formatter(fmt)

    def after_fork_in_child(self) -> None:
        self._inner.after_fork_in_child()
