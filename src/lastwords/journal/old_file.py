"""What can be read of a file that is not the journal any more, however damaged it is.

A range of seqs that cannot be read is halved, and a single row that cannot be is left out. Nothing here raises what
SQLite raises, and no number that a damaged row says makes anybody count up to it.
"""

from __future__ import annotations

import os
import re
import sqlite3
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

from .rows import DEAD_COLUMNS, entry_id, highest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Span = tuple[int, int]  # of seqs, both included
    Rows = tuple[list[tuple[Any, ...]], list[Span]]  # entries, and the spans that could not be read

SPAN = 512  # rows in one read
LEAST = 1  # that are left out together
_UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)  # what a damaged file raises
_ROW = "seq, created, level, payload, checksum, id"
_DEAD = f"SELECT rowid, {DEAD_COLUMNS} FROM dead_letters WHERE rowid > ? ORDER BY rowid LIMIT ?"  # noqa: S608
_PAYLOAD = DEAD_COLUMNS.split(", ").index("payload")
_NOTES = "SELECT key, value FROM meta WHERE key LIKE 'moved %'"
_SETTINGS = "SELECT key, value FROM meta WHERE key IN ('destination', 'keep_delivered', 'max_bytes')"


class OldFile:
    """One, through a connection. ``name``: if nothing in it says which it is; ``epochs``: if it does not say them."""

    def __init__(self, conn: sqlite3.Connection, name: str, epochs: Sequence[tuple[int, str]] = ()) -> None:
        self.conn = conn
        self.name = name
        found = self.read("SELECT first_seq, uuid FROM epochs ORDER BY first_seq")
        # What the file says comes first: a process may know of fewer, and all that move it are to give the same ids.
        self.epochs = found or list(epochs)
        self.uuid = self.epochs[-1][1] if self.epochs else name
        cursor, last = self.read("SELECT settled, consumed FROM cursor"), self.read("SELECT max(seq) FROM entries")
        self.is_broken = not (found and cursor and last)  # not all that matters could be read
        self.settled, consumed = map(_number, cursor[0]) if cursor else (self._before_first(), 0)
        most = highest(max(self.settled, consumed), self._size())
        newest = (_number(last[0][0]) if last else 0) or self._last_that_reads()
        if newest > most:  # that is the seq of a damaged row
            self.is_broken = True
            newest = self._number("SELECT max(seq) FROM entries WHERE seq <= ?", most)
        self.newest = max(newest, self.settled)
        self.ahead = {row[0] for row in self.read("SELECT seq FROM ahead")}

    def read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query, none if the file is too damaged."""
        try:
            return self.conn.execute(query, values).fetchall()
        except _UNREADABLE:
            return []

    def _number(self, query: str, *values: object) -> int:
        rows = self.read(query, *values)
        return _number(rows[0][0]) if rows else 0

    def _before_first(self) -> int:
        """What is there is pending, if there is no cursor."""
        return max(0, self._number("SELECT min(seq) FROM entries") - 1)

    def _size(self) -> int:
        """The bytes that there are for entries, at most: the file may name any number of pages."""
        said = self._number("PRAGMA page_count") * self._number("PRAGMA page_size")
        there = sum(os.path.getsize(file) for file in (self.name, self.name + "-wal") if os.path.exists(file))
        return min(said or there, there or said)

    def _last_that_reads(self) -> int:
        """The last entry that a scan comes to, if the end of the table cannot be read."""
        at, step = self.settled, 1_000
        while step:
            found = self.read("SELECT seq FROM entries WHERE seq > ? ORDER BY seq LIMIT ?", at, step)
            if found and found[-1][0] > at:
                at = found[-1][0]
            else:
                step //= 2
        return at

    def rows(self, first: int, last: int, *, strict: bool) -> Rows:
        """Entries from ``first`` to ``last`` that can be read, and the spans that cannot.

        ``strict``: what is not there counts as unreadable, and a range that has not all its rows is halved, too: a
        garbage seq ends a scan, or begins another one, without an error, and rows on either side of it can be read one
        at a time.
        """
        todo = [(start, min(start + SPAN - 1, last)) for start in range(first, last + 1, SPAN)]
        todo.reverse()
        found: list[tuple[Any, ...]] = []
        failed: list[Span] = []
        while todo:
            low, high = todo.pop()
            part = self._scan(low, high)
            if part is not None and (not strict or [row[0] for row in part] == list(range(low, high + 1))):
                found += (row for row in part if None not in row[:5])  # no row has that, but one that is damaged
            elif high - low >= LEAST:
                middle = (low + high) // 2
                todo += [(middle + 1, high), (low, middle)]
            else:
                failed.append((low, high))
        return found, without([(first, last)], [row[0] for row in found]) if strict else failed

    def _scan(self, low: int, high: int) -> list[tuple[Any, ...]] | None:
        where, values = ("seq = ?", (low,)) if low == high else ("seq BETWEEN ? AND ? ORDER BY seq", (low, high))
        try:
            return self.conn.execute(f"SELECT {_ROW} FROM entries WHERE {where}", values).fetchall()  # noqa: S608
        except _UNREADABLE:
            return None

    def copy_of(self, row: tuple[Any, ...]) -> tuple[object, ...]:
        """All columns of an entry but its seq, as they are copied, with its id, if anything says that."""
        seq, created, level, payload, checksum, own = row
        says_id = self.epochs or (isinstance(own, str) and own.isascii())
        id_ = entry_id(self.epochs, seq, own) if says_id else None
        return _plain(created), _plain(level), _as_bytes(payload), _plain(checksum), id_

    def dead(self, after: int, most: int) -> list[tuple[object, ...]]:
        """Dead letters beyond a rowid: each with its own, and as it is copied."""
        try:
            rows = self.conn.execute(_DEAD, (after, most)).fetchall()
        except _UNREADABLE:
            self.is_broken = True
            return []
        return [
            (rowid, *(_as_bytes(value) if at == _PAYLOAD else _plain(value) for at, value in enumerate(values)))
            for rowid, *values in rows
        ]

    def notes(self) -> list[tuple[str, str]]:
        """How far still older files were moved into this one."""
        return [(str(_plain(key)), str(_plain(value))) for key, value in self.read(_NOTES)]

    def settings(self) -> list[tuple[object, object]]:
        """What the handler noted when it was made; it is not made anew with the file."""
        return [(_plain(key), _plain(value)) for key, value in self.read(_SETTINGS)]


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def whole(value: object) -> int:
    """The number that a note says, 0 if it says none."""
    return int(str(value)) if re.fullmatch("[0-9]{1,18}", str(value)) else 0


def _as_bytes(value: object) -> bytes:
    """A damaged payload need not be UTF-8, and its checksum tells later."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value


# --- spans of seqs ------------------------------------------------------------------------------------------


def without(spans: Iterable[Span], seqs: list[int]) -> list[Span]:
    """The spans without these seqs, which are in order."""
    left = []
    for first, last in spans:
        inside = seqs[bisect_left(seqs, first) : bisect_right(seqs, last)]
        ends = zip([first - 1, *inside], [*inside, last + 1], strict=True)
        left += [(low + 1, high - 1) for low, high in ends if high - low > 1]
    return left


def count(spans: Iterable[Span]) -> int:
    """How many seqs are in them."""
    return sum(high - low + 1 for low, high in spans)


def is_within(spans: list[Span], first: int, last: int) -> bool:
    """Whether one of the spans, in order, has some of the seqs from ``first`` to ``last``."""
    place = bisect_right(spans, (last, 2**63)) - 1
    return place >= 0 and first <= spans[place][1]
