"""StreamHandler and FileHandler, with all their rotating and watching children.

A stream accepts when it was written and flushed; a file when it was synced as well. What stdlib keeps silent about:

* A closed ``FileHandler(mode="w")`` drops records without calling ``handleError``.
* When the disk is full, what could not be written stays in the stream's buffer, and each try adds another copy: when
  there is room again, all are written. So after a failure a file is closed without writing its buffer and opened again
  (a line that was torn is ended first), and a stream is flushed before anything is added to it.
* ``mode="w"`` would empty the file when it is opened again: from the second time on it is "a".
"""

from __future__ import annotations

import errno
import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...journal import files
from .wrap import HandlerTarget

if TYPE_CHECKING:
    import logging

    from ...record.codec import Entry

# What cannot be synced is not a file on a disk: a pipe, a terminal, /dev/null.
_NOT_ON_DISK = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EROFS})


class StreamTarget(HandlerTarget):
    """Accepted: written and flushed."""

    rebuild_helps = False
    _may_hold_text = False

    def describe(self) -> str:
        return f"{type(self.handler).__name__} {getattr(self.handler.stream, 'name', '')}".rstrip()

    def before(self, entry: Entry) -> None:
        if self._may_hold_text:
            self.handler.flush()  # raises as long as there is no room; so there is never more than one copy in it
            self._may_hold_text = False

    def failed(self, error: Exception) -> None:
        self._may_hold_text = isinstance(error, OSError)


class FileTarget(HandlerTarget):
    """Accepted: written, flushed and synced."""

    rebuild_helps = False
    _synced_folder_of: tuple[int, int] | None = None
    _may_be_torn = False

    def __init__(self, handler: logging.FileHandler) -> None:
        super().__init__(handler)
        self._append_from_now_on()

    def describe(self) -> str:
        return f"{type(self.handler).__name__} {self.handler.baseFilename}"

    def before(self, entry: Entry) -> None:
        if self._may_be_torn:
            one_byte = not (self.handler.encoding or "").lower().startswith(("utf-16", "utf_16", "utf-32", "utf_32"))
            if one_byte and self.handler.terminator == "\n":
                _end_torn_line(self.handler.baseFilename)
            self._may_be_torn = False

    def after(self, entry: Entry) -> None:
        stream = self.handler.stream
        if stream is None or stream.closed:
            self._after_closed_stream()
            return
        self._append_from_now_on()
        try:
            fd = stream.fileno()
        except (OSError, io.UnsupportedOperation):
            return  # a subclass with a stream of its own making
        self._sync(fd)

    def _after_closed_stream(self) -> None:
        """A closed handler wrote nothing; concurrent-log-handler (keep_file_open=False) closes after each record."""
        if getattr(self.handler, "_closed", False):  # FileHandler.emit with mode "w", CPython bpo-42378
            raise ValueError(f"{type(self.handler).__name__} is closed")
        fd = os.open(self.handler.baseFilename, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._sync(fd)
        finally:
            os.close(fd)

    def _sync(self, fd: int) -> None:
        try:
            files.sync_descriptor(fd)
            self._sync_name(fd)
        except OSError as error:
            if error.errno not in _NOT_ON_DISK:
                raise

    def _sync_name(self, fd: int) -> None:
        """A file that was just made is not found after a power loss unless its folder was synced too."""
        status = os.fstat(fd)
        if self._synced_folder_of != (status.st_dev, status.st_ino):
            files.sync_folder(self.handler.baseFilename)
            self._synced_folder_of = (status.st_dev, status.st_ino)

    def _append_from_now_on(self) -> None:
        handler = self.handler
        if handler.stream is not None:  # opened, and emptied if that was wanted
            handler.mode = handler.mode.replace("w", "a").replace("x", "a")

    def failed(self, error: Exception) -> None:
        if isinstance(error, OSError):
            self._may_be_torn = True
            stream, self.handler.stream = self.handler.stream, None
            _close_unwritten(stream)

    def after_fork_in_child(self) -> None:
        # What the parent was just writing is in our copy of the buffer too, and would be written by both.
        stream = self.handler.stream
        if hasattr(getattr(stream, "buffer", None), "raw"):
            self.handler.stream = None  # the next record opens it again
            _close_unwritten(stream)

    def close(self) -> None:
        # With an empty buffer this raises nothing; with a full one, what is in it was not accepted.
        with suppress(OSError):
            super().close()


def _close_unwritten(stream: Any) -> None:
    """Close a text stream without writing what is in its buffers."""
    raw = getattr(getattr(stream, "buffer", None), "raw", stream)
    with suppress(OSError, ValueError):
        if raw is not None:
            raw.close()


def _end_torn_line(path: str) -> None:
    """If the file does not end with a line end, write one: the next line is to be a line of its own."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return  # rotated away, or ours to append only
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")
    finally:
        os.close(fd)
