"""The pages of a journal that SQLite cannot read: of the main file, and of the ``-wal``, which may be all there is.

Theory of operation
-------------------
A ``-wal`` is a header and frames, each a page with a header of its own (https://sqlite.org/fileformat2.html#walformat).
A frame counts if its checksum follows from that of the frame before: so a torn one is left out, and so are those behind
it up to the next two that fit together. Those with the salts of the header are the newest; of their last transaction,
which may have been under way, only what was committed counts. Behind them lie what older ones left, whose pages were
moved to the main file: they are taken for pages that it lacks, because it was cut or overwritten with zeros.

Both headers give the size of a page. If neither is left, each size is tried: only with the right one do frames with the
same salts follow each other, or pages begin as pages do.

No number in these files is believed: SQLite itself takes a page number out of a damaged page and commits a frame for
page 400,000,000, and a checkpoint makes a file of that length with one page at its end. So what is there is gone
through, with the main file's holes left out, and never the numbers up to the highest.
"""

import errno
import os
import sys
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from . import files
from .new_schema import PAGE_SIZE
from .wal_check import FRAME_HEADER, HEADER, checksum

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = 0x377F0682  # the last bit: the byte order of the checksums
_SIZES = (PAGE_SIZE, 4096)  # that journals of ours have
_LOOKS = 1_000  # at what may be the beginning of a page
_BEGINNINGS = {2, 5, 10, 13}  # of the pages of tables and indexes


class _Frame(NamedTuple):
    at: int
    header: bytes
    seed: bytes  # the checksum of what comes before

    def read(self, fd: int, size: int, order: str) -> bytes:
        """Its page, empty if it does not count."""
        page = _read(fd, size, self.at + FRAME_HEADER)
        whole = len(page) == size and checksum(self.header[:8] + page, self.seed, order) == self.header[16:]
        return page if whole else b""


def has_frames(path: str) -> bool:
    """Whether there is a ``-wal`` beside ``path`` with a frame that counts."""
    fd = files.open_if_sound(path + "-wal", files.owner_of(path))
    if fd is None:
        return False
    try:
        size, order, head = _read_header(fd)
        size = size or _size_of_frames(fd, order)
        return any(frame.read(fd, size, order) for frame in _frames(fd, size, head))
    finally:
        os.close(fd)


def wal_has_the_rest(path: str) -> bool:
    """Whether all pages are in the ``-wal`` by which the main file is shorter than it says: a checkpoint was cut short.

    Else it is the file that was. Only what SQLite takes of it counts: what comes before the first frame that is torn.
    The file itself is not opened here, see ``files``: SQLite may have it open.
    """
    fd = files.open_if_sound(path + "-wal", files.owner_of(path))
    if fd is None:
        return False
    try:
        size, order, head = _read_header(fd)
        found, begun, ends, expected = set(), [], 0, HEADER
        for frame in _frames(fd, size or PAGE_SIZE, head):
            if frame.at != expected or frame.header[8:16] != head[:8] or not frame.read(fd, size, order):
                break
            expected += FRAME_HEADER + size
            begun.append(int.from_bytes(frame.header[:4], "big"))
            if committed := int.from_bytes(frame.header[4:8], "big"):  # pages, of all that is there now
                found.update(begun)
                begun.clear()
                ends = committed
        return ends > 0 and found.issuperset(range(os.path.getsize(path) // size + 1, ends + 1))
    finally:
        os.close(fd)


def _read(fd: int, length: int, at: int) -> bytes:
    """What is there; nothing if the medium does not give it."""
    try:
        return os.pread(fd, length, at)
    except OSError:
        return b""


def _read_header(fd: int) -> tuple[int, str, bytes]:
    """The size of a page, the byte order and the salts; no size, and salts of no frame, if it is no header."""
    header = _read(fd, HEADER, 0)
    magic, size = int.from_bytes(header[:4], "big"), int.from_bytes(header[8:12], "big")
    if len(header) < HEADER or magic | 1 != _MAGIC | 1 or size & (size - 1) or not 512 <= size <= 65536:
        return 0, "<" if sys.byteorder == "little" else ">", b""
    return size, ">" if magic & 1 else "<", header[16:32]


def _size_of_frames(fd: int, order: str) -> int:
    """The size by which frames follow each other, without a header that says it."""
    for size in _SIZES:
        if any(frame.read(fd, size, order) for frame in islice(_frames(fd, size, b""), _LOOKS)):
            return size
    return _SIZES[0]


def _size_of_pages(fd: int) -> int:
    """The size of the pages of a main file, without a header that says it."""
    smaller, larger = _SIZES
    balance = 0
    for at in range(smaller, min(os.fstat(fd).st_size, _LOOKS * larger), larger):  # the middle of a larger one
        for byte in _read(fd, 1, at):
            balance += 1 if byte in _BEGINNINGS else -1 if byte else 0
    return smaller if balance >= 0 else larger


def _frames(fd: int, size: int, head: bytes) -> "Iterator[_Frame]":
    """Those that follow another one, or the header, with the same salts: whether they count is asked later."""
    before = head
    for at in range(HEADER, os.fstat(fd).st_size - FRAME_HEADER - size + 1, FRAME_HEADER + size):
        header = _read(fd, FRAME_HEADER, at)
        if header[8:16] == before[:8] and any(header[:4]):
            yield _Frame(at, header, before[8:])
        before = header[8:]


class Pages:
    """Those of the journal at ``path``. Read with :meth:`read_wal` to the end first."""

    def __init__(self, path: str) -> None:
        owner = files.owner_of(path)
        self._main = files.open_if_sound(path, owner)
        self._wal = files.open_if_sound(path + "-wal", owner)
        self._order, self._head = "<", b""
        self.size = self._find_size()
        self._main_pages = 0 if self._main is None else os.fstat(self._main).st_size // self.size
        self._newest: dict[int, list[_Frame]] = {}  # of each page
        self._older: dict[int, list[_Frame]] = {}
        self.count = self._main_pages

    def _find_size(self) -> int:
        size = 0
        if self._wal is not None:
            size, self._order, self._head = _read_header(self._wal)
        if self._main is not None and not size:
            header = _read(self._main, 18, 0)
            if header[:16] == b"SQLite format 3\0":
                size = {1: 65536}.get(found := int.from_bytes(header[16:], "big"), found)
            if not size and os.fstat(self._main).st_size > _SIZES[0]:
                size = _size_of_pages(self._main)
        if self._wal is not None and not size:
            size = _size_of_frames(self._wal, self._order)
        return size or _SIZES[0]

    def close(self) -> None:
        """Give up the descriptors."""
        for fd in (self._main, self._wal):
            if fd is not None:
                os.close(fd)
        self._main = self._wal = None

    def read_wal(self) -> "Iterator[None]":
        """Go through the ``-wal``, frame by frame."""
        if self._wal is None:
            return
        begun: list[_Frame] = []
        older: list[_Frame] = []
        for frame in _frames(self._wal, self.size, self._head):
            if frame.header[8:16] == self._head[:8]:
                begun.append(frame)
                if any(frame.header[4:8]):  # the last one of a transaction
                    _add(begun, self._newest)
                    begun.clear()
            else:
                older.append(frame)
            yield
        older.sort(key=lambda frame: frame.header[8:12])  # the first salt counts how often it was begun anew
        _add(older, self._older if self._head else self._newest)
        self.count = self._main_pages + len(self._newest.keys() | self._older.keys())

    def numbers(self) -> "Iterator[int]":
        """Those of the pages that are there."""
        only_in_wal = self._newest.keys() | self._older.keys()
        number = 1
        while (number := self._next_in_main(number)) <= self._main_pages:
            only_in_wal.discard(number)
            yield number
            number += 1
        yield from sorted(only_in_wal)

    def _next_in_main(self, number: int) -> int:
        """The first page from ``number`` on that is no hole; a number beyond the last if there is none."""
        if self._main is None or number > self._main_pages or not hasattr(os, "SEEK_DATA"):
            return number
        try:
            return os.lseek(self._main, (number - 1) * self.size, os.SEEK_DATA) // self.size + 1
        except OSError as error:  # ENXIO: nothing but a hole up to its end
            return self._main_pages + 1 if error.errno == errno.ENXIO else number

    def read(self, number: int) -> bytes:
        """The page, empty if there is none."""
        page = self._of_wal(self._newest, number)
        if not page and 1 <= number <= self._main_pages and self._main is not None:
            page = _read(self._main, self.size, (number - 1) * self.size)
        return page if any(page) else self._of_wal(self._older, number)

    def _of_wal(self, frames: dict[int, list[_Frame]], number: int) -> bytes:
        for frame in reversed(frames.get(number, ())):
            if self._wal is not None and (page := frame.read(self._wal, self.size, self._order)):
                return page
        return b""


def _add(frames: list[_Frame], pages: dict[int, list[_Frame]]) -> None:
    for frame in frames:
        pages.setdefault(int.from_bytes(frame.header[:4], "big"), []).append(frame)
