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
bytes. Both files are read through the descriptors that SQLite has: another one, closed, would take its locks along.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = 32  # bytes, of the -wal
FRAME_HEADER = 24  # bytes, of each frame; the salts are at 8
_MASK = 0xFFFFFFFF
_BLOCK = 512  # what st_blocks counts
_TRIES = 5  # other processes commit meanwhile
_MOST = 2_000  # frames in one look
_READ_BYTES = 2**17
_END = 16  # bytes of a page
_MOST_SUMS = 50  # of them; one takes 0.1 ms


class Index(NamedTuple):
    """What a ``-shm`` says of the ``-wal``: how many frames count, how long each is, and their salts."""

    frames: int
    frame: int
    salts: bytes


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
        self._last: Index | None = None  # at the last look

    def is_suspect(self, status: os.stat_result | None) -> bool:
        """Whether a ``stat`` of the ``-wal`` gives reason for a look at what is in it."""
        if status is None:
            return False  # not there: that is found otherwise
        before, self._bytes = self._bytes, max(self._bytes, status.st_size)
        return status.st_size < before or getattr(status, "st_blocks", status.st_size) * _BLOCK < status.st_size

    def is_whole(self, wal: int, shm: int) -> bool:
        """Whether all is there. ``wal``, ``shm``: descriptors. Raises OSError."""
        for _ in range(_TRIES):
            raw = os.pread(shm, 96, 0)
            index = read_index(raw)
            if index is None:
                continue
            size = os.fstat(wal).st_size
            if not index.frames or _has(wal, size, index, self._last):
                self._bytes, self._last = size, index
                return True
            if os.pread(shm, 96, 0) == raw:  # else it was begun anew meanwhile
                return False
        return True


def _has(wal: int, size: int, index: Index, before: Index | None) -> bool:
    end = HEADER + index.frames * index.frame
    if size < end or _has_hole(wal, end) or os.pread(wal, 8, 16) != index.salts:
        return False
    sums, seen = 0, set()
    for at, raw in _frames(wal, index, before):
        if raw[8:16] != index.salts:
            return False
        if raw[-1] == 0 and sums < _MOST_SUMS and (raw[:4], raw[-_END:]) not in seen:
            sums += 1
            if not _sums_up(wal, at, raw):
                return False
            if any(raw[-_END:]):  # that page, with that end: another cut of it would have left more zeros
                seen.add((raw[:4], raw[-_END:]))
    return True


def _frames(wal: int, index: Index, before: Index | None) -> Iterator[tuple[int, bytes]]:
    """Those that are to be looked at, and where they are; several in one read, as each lets other threads run."""
    known = before.frames if before is not None and before.salts == index.salts else 1
    at = HEADER + (max(1, known, index.frames - _MOST) - 1) * index.frame
    end, most = HEADER + index.frames * index.frame, max(1, _READ_BYTES // index.frame) * index.frame
    while at < end:
        size = min(most, end - at)
        raw = os.pread(wal, size, at)
        for begin in range(0, size, index.frame):
            yield at + begin, raw[begin : begin + index.frame]
        at += size


def _sums_up(wal: int, at: int, raw: bytes) -> bool:
    """Whether a frame has its checksum (https://sqlite.org/fileformat2.html#wal_file_format)."""
    order = ">" if os.pread(wal, 4, 0)[3] & 1 else "<"
    seed = os.pread(wal, 8, 24 if at == HEADER else at - len(raw) + 16)
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
