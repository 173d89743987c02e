"""StreamHandler and FileHandler, with all their rotating and watching children.

A stream accepts when it was written and flushed; a file when it was synced as well. A file takes a batch: each record
is written and flushed by the handler, then all are synced at once, those in a file that was rotated away meanwhile with
it. If one fails, those before it are accepted, and so are those written when the time is up: a file may be slow, and a
process so short that a whole batch would be cut off in each, and written again by the next one, for ever.

Several processes may have the same file, each through a handler of its own. Only one of them delivers at a time, so
before each batch it is enough to look whether the file at the path is still the one that is open: else another process,
or logrotate, has rotated it away, and the handler opens the new one. A timed handler then counts from the new file on,
as it would for its own; and no rotation ever replaces a file that an earlier one has made, under whatever name
two processes, or a clock that was set back, agree upon.

What stdlib keeps silent about:

* A closed ``FileHandler(mode="w")`` drops records without calling ``handleError``.
* When the disk is full, what could not be written stays in the stream's buffer, and each try adds another copy: when
  there is room again, all are written. So after a failure a file is closed without writing its buffer and opened again
  (a line that was torn is ended first), and a stream is flushed before anything is added to it.
* ``mode="w"`` would empty the file when it is opened again: from the second time on it is "a".
"""

from __future__ import annotations

import io
import os
import stat
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ...errors import TryAgain
from ...journal import files
from ...runtime.clock import monotonic
from ..on_disk import sync
from .wrap import HandlerTarget, shadowed

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Sequence

    from ...record.codec import Entry


AT_ONCE = 50  # records in one hold of the handler's lock, which others may want that log to it directly
LONGEST_SECONDS = 0.5  # of a batch; what is written by then is marked


class StreamHandlerTarget(HandlerTarget):
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

    record_at_a_time = False
    batch_size = 1000
    rebuild_helps = False
    _synced_folder_of: tuple[int, int] | None = None
    _may_be_torn = False
    _accepted = 0  # of the batch under way
    _until = 0.0  # monotonic()
    _written: Any = None  # the stream that has what is not yet synced,
    _held = -1  # and its file, which the handler may close and rotate away

    def __init__(self, handler: logging.FileHandler) -> None:
        super().__init__(handler)
        self._append_from_now_on()

    def describe(self) -> str:
        return f"{type(self.handler).__name__} {self.handler.baseFilename}"

    def deliver(self, entries: Sequence[Entry]) -> None:
        self._follow()
        self._accepted, self._until = 0, monotonic() + LONGEST_SECONDS
        try:
            for first in range(0, len(entries), AT_ONCE):
                if self._accepted == first:  # else the time is up
                    self._deliver_some(entries[first : first + AT_ONCE])
        except Exception as error:
            if not self._accepted:
                raise
            self._sync_held(last=True)
            done = f"{self._accepted} of {len(entries)} written"
            raise TryAgain(f"{self.label}: {done}: {error}", accepted=self._accepted) from error
        else:
            self._sync_held(last=True)
            if self._accepted < len(entries):
                raise TryAgain(f"{self.label}: {self._accepted} of {len(entries)} written", accepted=self._accepted)
        finally:
            self._let_go()

    def _deliver_some(self, entries: Sequence[Entry]) -> None:
        with self._rotating(), self.attending() as failures:
            self._failures = failures
            try:
                for entry in entries:
                    self.deliver_one(entry)
                    self._accepted += 1
                    if monotonic() >= self._until:
                        break
            finally:
                self._failures = None

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
        elif stream is not self._written:
            self._append_from_now_on()
            self._sync_held()  # the handler has rotated it away
            self._hold(stream)

    # --- the file at the path ------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Go on with the file at the path, if that is not the one which is open any more."""
        handler = self.handler
        stream = handler.stream
        if stream is None or stream.closed or not _is_elsewhere(stream, handler.baseFilename):
            return
        handler.acquire()
        try:
            handler.stream = None
            stream.close()
            handler.stream = handler._open()
            if hasattr(handler, "rolloverAt"):
                handler.rolloverAt = handler.computeRollover(int(time.time()))
        finally:
            handler.release()

    @contextmanager
    def _rotating(self) -> Iterator[None]:
        """What stdlib's rotating handlers do otherwise: see ``_once``, ``_by_size`` and ``_free``."""
        handler = self.handler
        with ExitStack() as stack:
            if self.drives and hasattr(handler, "shouldRollover"):
                stack.enter_context(shadowed(handler, "format", _once(handler.format)))
                if type(handler).shouldRollover.__qualname__ == "RotatingFileHandler.shouldRollover":
                    stack.enter_context(shadowed(handler, "shouldRollover", _by_size(handler)))
            if hasattr(handler, "rolloverAt"):
                stack.enter_context(shadowed(handler, "rotation_filename", _free(handler.rotation_filename)))
            yield

    # --- on the disk ---------------------------------------------------------------------------------------------

    def _hold(self, stream: Any) -> None:
        self._written = stream
        try:
            self._held = os.dup(stream.fileno())
        except (OSError, io.UnsupportedOperation):
            self._held = -1  # a subclass with a stream of its own making

    def _let_go(self) -> None:
        fd, self._held, self._written = self._held, -1, None
        if fd >= 0:
            os.close(fd)

    def _sync_held(self, *, last: bool = False) -> None:
        """``last``: it is the one which the handler goes on with."""
        if self._held < 0:
            return
        try:
            self._sync(self._held)
        except FileNotFoundError:
            if last:
                raise  # not by a rotation of its own, which may keep fewer files than a batch fills
        self._let_go()

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
        sync(fd, self.handler.baseFilename)
        self._sync_name(fd)

    def _sync_name(self, fd: int) -> None:
        """A file that was just made is not found after a power loss unless its folder was synced too."""
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and self._synced_folder_of != (status.st_dev, status.st_ino):
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
        self._let_go()
        # What the parent was just writing is in our copy of the buffer too, and would be written by both.
        stream = self.handler.stream
        if hasattr(getattr(stream, "buffer", None), "raw"):
            self.handler.stream = None  # the next record opens it again
            _close_unwritten(stream)

    def close(self) -> None:
        # With an empty buffer this raises nothing; with a full one, what is in it was not accepted.
        with suppress(OSError):
            super().close()


def _once(plain: Callable[[logging.LogRecord], str]) -> Callable[[logging.LogRecord], str]:
    """Format each record once: a rotating handler does it to know the length, and once more to write it."""
    last: tuple[logging.LogRecord, str] | None = None

    def formatted(record: logging.LogRecord) -> str:
        nonlocal last
        if last is None or last[0] is not record:
            last = record, plain(record)
        return last[1]

    return formatted


def _by_size(handler: Any) -> Callable[[logging.LogRecord], bool]:
    """As stdlib's, for a file that is written through: one look at its size instead of two at its path and a seek."""
    plain = handler.shouldRollover

    def due(record: logging.LogRecord) -> bool:
        if handler.stream is not None and handler.maxBytes > 0:
            status = os.fstat(handler.stream.fileno())
            if status.st_size and stat.S_ISREG(status.st_mode):
                return bool(status.st_size + len(handler.format(record)) + 1 >= handler.maxBytes)
        return bool(plain(record))

    return due


def _free(named: Callable[[str], str]) -> Callable[[str], str]:
    """Rotate to a name that is free: a timed rotation of stdlib removes the file that has the name already."""

    def free(default_name: str) -> str:
        name = found = str(named(default_name))
        number = 0
        while os.path.exists(found):
            number += 1
            found = f"{name}.{number}"
        return found

    return free


def _is_elsewhere(stream: Any, path: str) -> bool:
    """True if ``stream`` is a file on a disk, and not the one at ``path``."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, io.UnsupportedOperation):
        return False
    try:
        return stat.S_ISREG(status.st_mode) and not os.path.samestat(status, os.stat(path))
    except FileNotFoundError:
        return True


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
