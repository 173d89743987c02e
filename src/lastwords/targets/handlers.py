"""Any ``logging.Handler`` as a target: its failures are heard."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from .contract import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..record import Entry


class HandlerTarget(Target):
    """Provisional."""

    record_at_a_time = True

    def __init__(self, handler: logging.Handler) -> None:
        self.handler = self.front = handler
        self.label = type(handler).__name__

    def deliver(self, entries: Sequence[Entry]) -> None:
        caught: list[BaseException] = []
        handler = self.handler
        handler.handleError = lambda record: caught.append(sys.exc_info()[1] or RuntimeError("?"))  # type: ignore
        try:
            for entry in entries:
                handler.acquire()
                try:
                    handler.emit(entry.record)
                finally:
                    handler.release()
        finally:
            del handler.handleError
        if caught:
            raise caught[0]
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            os.fsync(handler.stream.fileno())

    def close(self) -> None:
        self.handler.close()

    def set_formatter(self, fmt: logging.Formatter | None) -> None:
        self.handler.setFormatter(fmt)
