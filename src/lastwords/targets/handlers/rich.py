"""RichHandler: a console whose reader is gone must not fall silent.

When a pipe breaks, rich's Console sets ``quiet``, points stdout at /dev/null and raises SystemExit: from then on it
prints nothing and every record would look accepted. Here the broken pipe stays an error; if the application's own use
of the console made it quiet, that is an error as well. What could not be written stays in its buffer, one more
copy with each try: it is thrown away, because the journal has it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NoReturn

from .wrap import HandlerTarget, shadowed

if TYPE_CHECKING:
    import logging

    from ...record.codec import Entry


def _broken() -> NoReturn:
    raise BrokenPipeError(errno.EPIPE, "nobody reads the console any more")


class RichTarget(HandlerTarget):
    """Accepted: printed and flushed."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(handler)
        self._wanted_quiet = bool(self.handler.console.quiet)

    def emit(self, entry: Entry) -> None:
        console = self.handler.console
        if console.quiet and not self._wanted_quiet:
            raise ConnectionError(f"{self.label}: its console has become quiet and prints nothing")
        with shadowed(console, "on_broken_pipe", _broken):
            super().emit(entry)

    def failed(self, error: Exception) -> None:
        left = getattr(self.handler.console, "_buffer", None)  # this thread's own
        if isinstance(left, list):
            left.clear()
