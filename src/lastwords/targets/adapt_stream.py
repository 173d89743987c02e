"""StreamHandler and FileHandler, with all their rotating and watching children.

A stream accepts when it was written and flushed; a file when it was synced as well. What stdlib keeps silent about: a
closed ``FileHandler(mode="w")`` drops records without calling ``handleError``.
"""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING

from .. import place
from .handlers import HandlerTarget

if TYPE_CHECKING:
    from ..record import Entry

# What cannot be synced is not a file on a disk: a pipe, a terminal, /dev/null.
_NOT_ON_DISK = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EROFS})


class StreamTarget(HandlerTarget):
    """Accepted: written and flushed."""

    def describe(self) -> str:
        return f"{type(self.handler).__name__} {getattr(self.handler.stream, 'name', '')}".rstrip()


class FileTarget(HandlerTarget):
    """Accepted: written, flushed and synced."""

    _synced_folder_of: tuple[int, int] | None = None

    def describe(self) -> str:
        return f"{type(self.handler).__name__} {self.handler.baseFilename}"

    def after(self, entry: Entry) -> None:
        stream = self.handler.stream
        if stream is None:  # FileHandler.emit on a closed handler with mode "w", CPython bpo-42378
            raise ValueError(f"{type(self.handler).__name__} is closed")
        try:
            fd = stream.fileno()
        except (OSError, io.UnsupportedOperation):
            return  # a subclass with a stream of its own making
        try:
            place.sync_descriptor(fd)
            self._sync_name(fd)
        except OSError as error:
            if error.errno not in _NOT_ON_DISK:
                raise

    def _sync_name(self, fd: int) -> None:
        """A file that was just made is not found after a power loss unless its folder was synced too."""
        status = os.fstat(fd)
        if self._synced_folder_of != (status.st_dev, status.st_ino):
            place.sync_folder(self.handler.baseFilename)
            self._synced_folder_of = (status.st_dev, status.st_ino)
