"""Whether the ``-wal`` has all that the ``-shm`` says of it: somebody may cut it, or write over it, while it is used.

Theory of operation
-------------------
SQLite does not notice. It goes on behind the end that the ``-shm`` names, so that the file is as long as it should be
again, with a hole in it; a later run finds no header there, and takes none of it. What the connection has in its cache
is all that is left then, so this must be found soon, and before a checkpoint writes zeros into the main file.

``-shm`` begins with two copies of a header (https://sqlite.org/walformat.html#the_wal_index_header): how many frames
count, and the salts that each of them has. The ``-wal`` is whole if it is as long as that, has no hole, and if its own
header and the frames since the look before, with the one that was the last then, have those salts: what was cut off
ended among them. A hole needs a block of the file system; a smaller cut leaves zeros at the end of a frame, whose
checksum then tells, but in a flood.

A ``stat`` tells whether there is reason to look: the file has become shorter, as it may, or has fewer blocks than
bytes. The ``-shm`` is read through the descriptor that SQLite has: another one, closed, would take its locks along. The
``-wal`` has no locks, so most frames are looked at beside commits, through a descriptor of our own (:class:`Part`); of
the last ones it must not be committed to meanwhile, see :meth:`WalCheck.look`.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import NamedTuple

HEADER = 32  # bytes, of the -wal
FRAME_HEADER = 24  # bytes, of each frame; the salts are at 8
_MASK = 0xFFFFFFFF
_BLOCK = 512  # what st_blocks counts
_TRIES = 5  # other processes commit meanwhile
_MOST = 2_000  # frames that are looked at, if more came since the last time
_SLICE = 60  # of them at once
_MOST_SUMS = 5  # of those, in the last slice, one in the others; one takes 0.1 ms
_END = 16  # bytes of a page, before its zeros


class Index(NamedTuple):
    """What a ``-shm`` says of the ``-wal``: how many frames count, how long each is, and their salts."""

    frames: int
    frame: int
    salts: bytes


class Part(NamedTuple):
    """Some frames that are to be looked at, without a lock."""

    check: WalCheck
    shm: Index
    first: int
    last: int
    before: Index | None  # how far the look had gone when this part was given out

    def is_sound(self, wal: int) -> bool:
        """Whether they are there. False also if the WAL was begun anew meanwhile. ``wal``: a descriptor; OSError."""
        return self.check._are_sound(wal, self.shm, self.first, self.last)


def read_index(raw: bytes) -> Index | None:
    """From the first 96 bytes of a ``-shm``; None while it is being written, or not made yet."""
    if len(raw) < 96 or raw[:48] != raw[48:96] or not raw[12]:
        return None
    size = int.from_bytes(raw[14:16], sys.byteorder)
    page = 65536 if size == 1 else size
    return Index(int.from_bytes(raw[16:20], sys.byteorder), FRAME_HEADER + page, raw[32:40])


class WalCheck:
    """That of one connection."""

    def __init__(self) -> None:
        self._bytes = 0  # of the file, the most that were seen
        self._last: Index | None = None  # at the last look, and as far as that went
        self._seen: set[tuple[bytes, int, bytes]] = set()

    def is_suspect(self, status: os.stat_result | None) -> bool:
        """Whether a ``stat`` of the ``-wal`` gives reason for a look at what is in it."""
        if status is None:
            return False  # not there: that is found otherwise
        before, self._bytes = self._bytes, max(self._bytes, status.st_size)
        return status.st_size < before or getattr(status, "st_blocks", status.st_size) * _BLOCK < status.st_size

    def part(self, shm: int, done: Part | None) -> Part | None:
        """The next frames to be looked at without a lock, ``done`` being sound. None: the rest is for :meth:`look`.

        ``shm``: a descriptor. Raises OSError.
        """
        if done is not None and done.check is self and done.before is self._last:  # nobody was faster
            self._last = done.shm._replace(frames=done.last)
        index = read_index(os.pread(shm, 96, 0))
        if index is None:
            return None  # it is being written
        first = _first(index, self._last)
        last = first + _SLICE - 1
        return Part(self, index, first, last, self._last) if last < index.frames else None

    def look(self, wal: int, shm: int) -> bool | None:
        """Whether all is there, by the next ``_SLICE`` frames. None: as far as that tells, but there are more.

        ``wal``, ``shm``: descriptors. Raises OSError.
        """
        for _ in range(_TRIES):
            raw = os.pread(shm, 96, 0)
            index = read_index(raw)
            if index is None:
                continue
            first = _first(index, self._last)
            last = min(index.frames, first + _SLICE - 1)
            if not index.frames or self._are_sound(wal, index, first, last):
                self._bytes, self._last = os.fstat(wal).st_size, index._replace(frames=last)
                return True if last == index.frames else None
            if os.pread(shm, 96, 0) == raw:  # else it was begun anew meanwhile
                return False
        return True

    def _are_sound(self, wal: int, index: Index, first: int, last: int) -> bool:
        """Whether these frames are there, and with the last ones what is before them."""
        if last == index.frames and _has_hole(wal, HEADER + last * index.frame):
            return False
        size, count = index.frame, last - first + 1
        start = HEADER + (first - 1) * size
        raw = os.pread(wal, count * size, start)
        if len(raw) < count * size or os.pread(wal, 8, 16) != index.salts:
            return False
        if any(raw[8 + i :: size].count(byte) != count for i, byte in enumerate(index.salts)):
            return False
        return self._sum_up(wal, start, raw, size, _MOST_SUMS if last == index.frames else 1)

    def _sum_up(self, wal: int, start: int, raw: bytes, size: int, most: int) -> bool:
        """Whether ``most`` of the frames in ``raw`` that end in zeros have their checksums.

        A page with the end that it had in a frame that did was not cut, or has lost nothing: another cut of it would
        have left more zeros.
        """
        ends = raw[size - 1 :: size]
        number = ends.find(0)
        while number >= 0 and most:
            frame = raw[number * size : (number + 1) * size]
            used = frame.rstrip(b"\0")
            page_and_end = (frame[:4], len(used), used[-_END:])
            if page_and_end not in self._seen:
                most -= 1
                if not _sums_up(wal, start + number * size, frame):
                    return False
                if len(self._seen) >= _MOST:
                    self._seen.clear()
                self._seen.add(page_and_end)
            number = ends.find(0, number + 1)
        return True


def _first(index: Index, before: Index | None) -> int:
    """The first frame that is to be looked at; frames have numbers from 1 on."""
    known = before.frames if before is not None and before.salts == index.salts else 1
    return max(1, known, index.frames - _MOST)


def _sums_up(wal: int, at: int, raw: bytes) -> bool:
    """Whether a frame has its checksum (https://sqlite.org/fileformat2.html#wal_file_format)."""
    magic, seed = os.pread(wal, 4, 0), os.pread(wal, 8, 24 if at == HEADER else at - len(raw) + 16)
    if len(magic) < 4 or len(seed) < 8:  # it was cut since the frame was read
        return False
    order = ">" if magic[3] & 1 else "<"
    return raw[16:FRAME_HEADER] == checksum(raw[:8] + raw[FRAME_HEADER:], seed, order)


def checksum(raw: bytes, seed: bytes, order: str) -> bytes:
    """That of ``raw``, which follows what has the checksum ``seed``; ``order``: of the bytes, as ``struct`` has it."""
    one, two = struct.unpack(">2I", seed)
    words = iter(struct.unpack(f"{order}{len(raw) // 4}I", raw))
    for word in words:
        one = one + word + two & _MASK
        two = two + next(words) + one & _MASK
    return struct.pack(">2I", one, two)


def _has_hole(wal: int, end: int) -> bool:
    if not hasattr(os, "SEEK_HOLE"):
        return False
    at = os.lseek(wal, 0, os.SEEK_CUR)  # SQLite seeks before it reads, where it has no pread(2)
    try:
        return os.lseek(wal, 0, os.SEEK_HOLE) < end
    except OSError:  # it was cut to nothing meanwhile
        return True
    finally:
        os.lseek(wal, at, os.SEEK_SET)
