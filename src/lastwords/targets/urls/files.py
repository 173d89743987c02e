"""``file:PATH``, ``stdout:`` and ``stderr:``: lines of text or of JSON.

What a file is promised
-----------------------
* Accepted: written with one append and synced, its name too if the file is new.
* A line is whole or not there. If writing fails half way (the disk is full), the file is cut back to where it was,
  unless somebody else has appended meanwhile; if the process dies half way, the next run ends the torn line first.
* Rotated away (renamed or removed): the next entry goes to a new file at PATH, and what was written into a file that
  was removed meanwhile is not accepted.
* A kill between the sync and our mark writes the entries again, with the same ids (which only ``format=json`` shows).

A stream is accepted when it was flushed. A closed pipe is an error, and the entries stay. On a terminal, control
characters of a record are shown and not obeyed; in a pipe or a file it is as it was logged.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from ...journal import files
from ...record.replayed import render_plainly
from ...runtime.descriptor import Descriptor
from ...runtime.visible import visible, visible_json
from ..contract import Target, unused_formatter
from ..on_disk import is_at, sync
from ..wording import TEXT_FORMAT, as_json
from .address import absolute, choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...record.codec import Entry
    from .address import Address


def _file_mode(name: str, text: str) -> int:
    try:
        value = int(text, 8)
    except ValueError:
        value = -1
    if not 0 <= value <= 0o777 or value & 0o200 == 0:
        raise ValueError(
            f"target: {name} must be permission bits in octal that let us write, such as 640, not {text!r}"
        )
    return value


_FORMAT = {"format": choice("text", "json")}


def from_address(address: Address) -> Target:
    """The target for ``file:PATH?format=text|json&mode=600``, ``stdout:?format=``, ``stderr:?format=``."""
    if address.scheme == "file":
        knobs = address.knobs(_FORMAT | {"mode": _file_mode})
        return File(address.path, **knobs)
    if address.path.strip("/"):
        raise ValueError(f"target: {address.scheme}: takes no path; for a file write file:PATH")
    return Stream(address.scheme, **address.knobs(_FORMAT))


class Lines(Target):
    """Entries as lines. ``format``: "text" (what the handler's formatter makes of it) or "json"."""

    def __init__(self, format: str) -> None:  # noqa: A002 - the knob's name
        self._format = format
        self._formatter = logging.Formatter(TEXT_FORMAT)

    @property
    def formatter(self) -> logging.Formatter | None:
        return None if self._format == "text" else unused_formatter()

    def set_formatter(self, fmt: logging.Formatter | None) -> None:
        if fmt is not None and self._format == "json":
            raise ValueError(f"{self.label}: format=json does not use a formatter")
        self._formatter = fmt or logging.Formatter(TEXT_FORMAT)

    def _line(self, entry: Entry) -> str:
        if self._format == "json":
            return as_json(entry).decode()
        render_plainly(entry.record, self._formatter)
        return self._formatter.format(entry.record)

    def _text(self, entries: Sequence[Entry], *, shown: bool) -> str:
        """The lines of ``entries``; ``shown``: on a terminal, which would obey an escape sequence."""
        lines = [self._line(entry) for entry in entries]
        if shown:
            lines = [visible_json(line) if self._format == "json" else visible(line, keep="\n\t") for line in lines]
        return "".join([line + "\n" for line in lines])


class File(Lines):
    """Appends to ``path``; see the module. ``mode``: permission bits of a file that we make."""

    batch_size = 1000

    def __init__(self, path: str, *, format: str = "text", mode: int = 0o600) -> None:  # noqa: A002
        super().__init__(format)
        if not path or "\0" in path:
            raise ValueError("target: file: needs a PATH, as in file:/var/log/app.log")
        self._path = absolute(path, "file: PATH")
        self._mode = mode
        self._fd = -1
        self._file: Descriptor | None = None
        self._pid = 0
        self.label = f"file:{self._path}"
        if os.path.isdir(self._path):
            raise ValueError(f"target: {self.label} is a folder; name a file in it")
        if _is_pipe(self._path):
            raise ValueError(f"target: {self.label} is a pipe or socket; write to stdout: and redirect it")
        if not os.path.isdir(os.path.dirname(self._path)):
            self.warnings = (f"{self.label}: its folder does not exist yet; entries wait until it does",)

    def deliver(self, entries: Sequence[Entry]) -> None:
        fd = self._open()
        data = self._text(entries, shown=os.isatty(fd)).encode("utf-8", "backslashreplace")
        start = -1
        try:
            if not _ends_whole(fd):  # torn by a crash, or by whoever else writes here
                data = b"\n" + data
            for written, end in _append(fd, data):
                start = end - written
            sync(fd, self._path)
        except BaseException:
            self._cut_back(fd, start)
            raise

    def _open(self) -> int:
        """The file at the path now, which after a rotation is another one than before."""
        if self._pid != os.getpid():
            self._drop()  # a fork: the descriptor is shared with the parent
        if self._file is not None and not (self._file.is_ours() and is_at(self._fd, self._path)):
            self._drop()
        if self._fd < 0:
            self._fd, self._pid = self._make(), os.getpid()
            self._file = Descriptor(self._fd)
        return self._fd

    def _make(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
        try:
            return os.open(self._path, flags)
        except FileNotFoundError:
            pass
        except PermissionError:
            return os.open(
                self._path, flags & ~os.O_RDWR | os.O_WRONLY
            )  # append-only for us: we cannot look at its end
        fd = os.open(self._path, flags | os.O_CREAT, self._mode)
        try:
            os.fchmod(fd, self._mode)  # whatever the umask is
            files.sync_folder(self._path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _cut_back(self, fd: int, start: int) -> None:
        """Nothing of this call was accepted: take back what was written of it, if it is still the end of the file."""
        try:
            if start >= 0 and os.lseek(fd, 0, os.SEEK_CUR) == os.fstat(fd).st_size:
                os.ftruncate(fd, start)
        except OSError:
            return  # then the lines are there twice, or torn; the next call ends a torn line
        finally:
            self._drop()

    def _drop(self) -> None:
        file, self._file, self._fd = self._file, None, -1
        if file is not None:
            file.close()  # unless somebody else has the number by now

    def close(self) -> None:
        self._drop()

    def after_fork_in_child(self) -> None:
        self._drop()


def _is_pipe(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _ends_whole(fd: int) -> bool:
    """True if the file is empty or ends with a line end, or cannot be looked at."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return True
    try:
        return os.pread(fd, 1, status.st_size - 1) in (b"\n", b"")
    except OSError:
        return True  # opened for writing only


def _append(fd: int, data: bytes) -> Any:
    """Write all of ``data``; after each write: how much was written, and where the file then ends."""
    view = memoryview(data)
    written = 0
    regular = stat.S_ISREG(os.fstat(fd).st_mode)
    while written < len(data):
        written += os.write(fd, view[written:])
        # With O_APPEND the offset is where our own bytes end, even if others append to the same file.
        yield written, os.lseek(fd, 0, os.SEEK_CUR) if regular else -1


class Stream(Lines):
    """Writes to ``sys.stdout`` or ``sys.stderr``, whatever that is at the time."""

    def __init__(self, name: str, *, format: str = "text") -> None:  # noqa: A002
        super().__init__(format)
        self._name = name
        self.label = f"{name}:"

    def deliver(self, entries: Sequence[Entry]) -> None:
        stream = getattr(sys, self._name)
        if stream is None:  # a daemon that closed it
            raise ConnectionError(f"{self.label} is not open")
        encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            text = self._text(entries, shown=stream.isatty())
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except ValueError as error:  # "I/O operation on closed file" says nothing about the entries
            raise ConnectionError(f"{self.label} is closed") from error
