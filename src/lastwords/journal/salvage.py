"""From a file that was set aside."""

from __future__ import annotations

import os
import sqlite3
import time
from bisect import bisect_right
from typing import TYPE_CHECKING

from ..errors import JournalDenied
from ..runtime.stderr import say
from . import files, meta, set_aside
from .old_file import count, read_all, whole
from .raw_rows import RawRows
from .sqlite_codes import text_of
from .transfer import AIM_SECONDS, Transfer

if TYPE_CHECKING:
    from .store import Store

SMALLEST = 512  # bytes that a page has at least


class Salvage(Transfer):
    """From a file that was set aside."""

    counts_gaps = True

    def __init__(self, name: str, marker: set_aside.Marker, store: Store) -> None:
        conn, into = _open_aside(name), store.connection()
        self._raw: RawRows | None = None  # while they are looked for
        self._counted = 0  # up to this seq, what is not there was counted before they were looked for
        self._total = 0, 0  # salvaged, and unreadable
        self._gaps: list[tuple[int, int]] = []  # what is looked for in them, if it is not all
        self._reason = marker.reason
        super().__init__(conn, name, into, marker.epochs)
        names = read_all(conn, "SELECT value FROM meta WHERE key = 'journal'")
        self._should_end = marker.newest if names == [(marker.journal,)] else 0
        self.is_broken |= max(self.newest, self.noted_at(into)) < self._should_end

    def size(self) -> int:
        """See :meth:`Transfer.size`. The file may name any number of pages, too."""
        there = sum(os.path.getsize(file) for file in (self.name, self.name + "-wal") if os.path.exists(file))
        return min(super().size() or there, there)

    @property
    def left(self) -> int:
        """See :meth:`Transfer.left`."""
        return 1 if self._raw is not None else super().left

    def step(self, store: Store) -> bool:
        """First what SQLite reads. If that is not all, what can be found in the pages, whatever leads to them."""
        if self._raw is not None:
            if not self._raw.find(AIM_SECONDS):
                self._turn_to(self._raw, store.connection())
            return True
        if super().step(store):
            return True
        if self.is_raw or self.was_whole(store.connection()):
            return False
        lost = self.lost(store.connection())
        self._counted = max(self.newest, self._first - 1, *(high for _, high in lost))
        self._gaps = [] if self.is_broken else lost
        self._raw = RawRows(self.name, self._wants_of if self._gaps else None)
        return True

    def _turn_to(self, raw: RawRows, into: sqlite3.Connection) -> None:
        """Move what was found in the pages, as far as it is not there yet."""
        self.source.close()
        moved, unreadable = self.moved, self.unreadable
        self.prefix = "moved raw "
        super().__init__(raw.conn, self.name, into, self._epochs)
        self.moved, self.unreadable = moved, unreadable
        self._raw, self.is_raw = None, True

    def wants(self, seq: int) -> bool:
        """See :meth:`Transfer.wants`."""
        return not self._gaps or _is_within(self._gaps, seq, seq)

    def _wants_of(self, first: int, last: int) -> bool:
        return _is_within(self._gaps, first, last)

    def count_missing(
        self, conn: sqlite3.Connection, gaps: list[tuple[int, int]], moved: list[int], *, is_last: bool
    ) -> int:
        """See :meth:`Transfer.count_missing`. What SQLite could not read, and is found after all, is not missing."""
        if not self.is_raw:
            return super().count_missing(conn, gaps, moved, is_last=is_last)
        lost = self.lost(conn)
        missing = -sum(_is_within(lost, seq, seq) for seq in moved)
        missing += count((max(low, self._counted + 1), high) for low, high in gaps if high > self._counted)
        end = max(self.newest, self._counted) + 1
        if is_last and end <= self._should_end and (end, self._should_end) not in lost:
            self.note_lost(conn, [(end, self._should_end)])
            missing += self._should_end - end + 1
        return missing

    def note(self, conn: sqlite3.Connection, moved: int, unreadable: int) -> None:
        """See :meth:`Transfer.note`. Of all processes that are at it, and of all looks."""
        is_ours = meta.get(conn, "damaged_file") == self.name
        before = [whole(meta.get(conn, key)) if is_ours else 0 for key in ("salvaged", "unreadable")]
        nothing = self.is_known and not moved and not unreadable
        if is_ours or not nothing:  # else the last words are another file's
            self._total = before[0] + moved, max(0, before[1] + unreadable)
        if nothing:
            return
        meta.put(conn, "damaged_at", str(time.time()))
        meta.put(conn, "damaged_file", self.name)
        meta.put(conn, "salvaged", str(self._total[0]))
        meta.put(conn, "unreadable", str(self._total[1]))

    def done(self, store: Store) -> bool:
        """See :meth:`Transfer.done`."""
        self.source.close()
        if not self.is_known or self.moved or self.unreadable:  # else it was another process, or the second look
            say(
                f"journal {store.path} was damaged ({self._reason}) and is set aside as {self.name}; {self._total[0]:,}"
                f" pending records were salvaged, {self._total[1]:,} could not be read"
            )
        return set_aside.done(self.name)


def _is_within(spans: list[tuple[int, int]], first: int, last: int) -> bool:
    """Whether one of the spans, in order, has some of the seqs from ``first`` to ``last``."""
    place = bisect_right(spans, (last, 2**63)) - 1
    return place >= 0 and first <= spans[place][1]


def _open_aside(name: str) -> sqlite3.Connection:
    """A connection to a file that was set aside, only to read."""
    if files.check_file(name) is None:
        raise files.missing(name)
    owner = files.owner_of(name.rpartition(set_aside.DAMAGED)[0])
    if not files.is_sound_at(name, owner):
        raise JournalDenied(name, f"does not belong to the journal's owner (uid {owner})", "see who made it")
    files.check_beside(name, owner)
    if os.path.getsize(name) < SMALLEST:  # SQLite removes a -wal beside such a file, also if it may only read
        return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    # Only to read: closing it then neither checkpoints nor removes the -wal, to which another process may still write.
    conn = sqlite3.connect(files.uri(name, "mode=ro"), uri=True, isolation_level=None, check_same_thread=False)
    conn.text_factory = text_of
    conn.execute("PRAGMA trusted_schema=OFF")
    return conn
