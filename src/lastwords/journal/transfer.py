"""Entries of a file that is not the journal any more, on their way into the one that is.

Theory of operation
-------------------
A journal that was removed, replaced or found damaged may have a week's entries pending: a gigabyte, which takes a
quarter of a minute to copy. So they are moved in slices of some ``AIM_SECONDS``, each a hold of the store's lock and a
commit. What is logged meanwhile is committed at once, behind them: the first slice puts the newest entry into the new
file, at its own seq, which keeps room for the others before it. They are filled in at their own seqs while this
process's courier waits. One whose place the cursor has passed (another process delivers), or for which there is no
room (the path holds another journal with entries of its own), is appended with its id.

Rules
-----
* An entry keeps its id. Each process that had the old file open moves it, so how far one is, is written down in the
  transaction of the slice, and the others go on from there; the note moves along with the last slice. One whose id is
  in the journal is not copied either.
* What cannot be read is left out, see ``old_file``, and counted.
* What is settled stays behind. Dead letters come along.
* A slice that fails is tried again by the keeper; nothing is forgotten before it is committed.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from ..runtime.clock import monotonic
from ..runtime.stderr import say
from . import meta
from .old_file import (
    UNREADABLE,
    as_bytes,
    columns_of,
    count,
    gaps_between,
    id_of,
    is_readable,
    last_readable,
    numbers_of,
    plain,
    ranges,
    read_all,
    read_number,
    whole,
)
from .rows import DEAD_COLUMNS, INSERT_DEAD, highest

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from .sqlite_files import Swapped
    from .store import Store

AIM_SECONDS = 0.02  # of one slice
FIRST_ROWS = 500  # of the first
MOST_ROWS = 5_000
LEAST_ROWS = 20  # on a busy machine each slice takes its time, however small it is
LOOK_ROWS = 20_000  # whose ids are looked at in one slice
_SPAN = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
_BASICS = (
    "SELECT settled FROM cursor",
    "SELECT first_seq, uuid FROM epochs",
    "SELECT max(seq) FROM entries",
)
_SETTINGS = "SELECT key, value FROM meta WHERE key IN ('destination', 'keep_delivered', 'max_bytes')"
_NOTES = "SELECT key, value FROM meta WHERE key LIKE 'moved %'"
_INSERT = (
    "INSERT OR IGNORE INTO entries (seq, created, level, payload, checksum, id) VALUES (?, ?, ?, CAST(? AS TEXT), ?, ?)"
)


class Transfer:
    """One file's. The store's lock is held around every call. ``name``: if nothing in the file says which it is.

    ``into``: the journal's connection, for what is known there. ``epochs``: if they cannot be read any more.
    """

    is_raw = False  # its rows were found in the pages, when those that SQLite reads had been moved
    prefix = "moved "  # of the key under which it is written down how far it is
    counts_gaps = False  # a seq that is not there was unreadable: only what was shed is not there in a whole file

    def __init__(
        self, source: sqlite3.Connection, name: str, into: sqlite3.Connection, epochs: Sequence[tuple[int, str]] = ()
    ) -> None:
        self.source = source
        self.name = name
        # What the file says comes first: a process may know of fewer, and all that move it are to give the same ids.
        self._epochs = read_all(source, "SELECT first_seq, uuid FROM epochs ORDER BY first_seq") or list(epochs)
        # Under which it is written down how far they are: of this file and no other; device and inode are used again.
        self._uuid = self._epochs[-1][1] if self._epochs else name
        self._key = self.prefix + self._uuid
        self.is_broken = not all(map(partial(is_readable, source), _BASICS))
        settled = read_number(source, "SELECT settled FROM cursor")
        if not is_readable(source, "SELECT settled FROM cursor"):  # else that is so, whatever a damaged first row says
            settled = max(0, read_number(source, "SELECT min(seq) FROM entries") - 1)
        self.newest = max(self._newest_of(settled), settled)
        self.at = settled
        self._ahead = {row[0] for row in read_all(source, "SELECT seq FROM ahead")}
        self._dead_at = 0  # the rowid up to which dead letters are moved
        self._first = settled + 1
        self.at, self._dead_at = self._noted(into)
        self._dead_left = True
        self._there: set[str] = set()  # ids in the journal
        self._seen = -1  # the seq up to which they were looked at
        self._slice_rows = FIRST_ROWS
        self._room = 0  # the seq of the newest entry, if it is there already
        self.is_known: bool | None = None  # some of it was moved before; known with the first slice
        self.moved = 0
        self.unreadable = 0

    def size(self) -> int:
        """The bytes that the file has for entries, at most."""
        return read_number(self.source, "PRAGMA page_count") * read_number(self.source, "PRAGMA page_size")

    def _newest_of(self, settled: int) -> int:
        newest = read_number(self.source, "SELECT max(seq) FROM entries") or last_readable(self.source, settled)
        consumed = read_number(self.source, "SELECT consumed FROM cursor")
        most = highest(max(settled, consumed), self.size())
        if newest <= most:
            return newest
        self.is_broken = True  # that is the seq of a damaged row: nobody counts up to it, and the pages are searched
        return read_number(self.source, f"SELECT max(seq) FROM entries WHERE seq <= {most}")  # noqa: S608 - a number

    @property
    def left(self) -> int:
        """How many seqs are still to be looked at."""
        return self.newest - self.at - int(self._room > self.at)

    def step(self, store: Store) -> bool:
        """Move a slice; True while there is more. Raises what SQLite raises, with nothing moved."""
        began = monotonic()
        conn = store.connection()
        store.hold_commit_lock()
        try:
            store.set_synchronous(conn, full=True)
            conn.execute("BEGIN IMMEDIATE")
            if self._look(conn):
                self._move(conn)
            conn.execute("COMMIT")
        finally:
            try:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
            finally:
                store.commit_lock.drop()
        self._commit()
        share = AIM_SECONDS / max(monotonic() - began, 0.001)
        self._slice_rows = min(MOST_ROWS, max(LEAST_ROWS, int(self._slice_rows * min(share, 2.0))))
        return self._is_behind or self._dead_left or self.at < self.newest

    # What a slice changes here counts once it is committed.

    def _look(self, conn: sqlite3.Connection) -> bool:
        """See which ids are there; False if there are more to look at first."""
        # Each by itself: together they are a scan of all that is moved already, for every slice.
        first = conn.execute("SELECT coalesce(min(seq), 0) FROM entries").fetchone()[0]
        newest = conn.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()[0]
        seen = max(self._seen, first - 1)
        self._seen = min(seen + LOOK_ROWS, newest)
        query = "SELECT id FROM entries WHERE seq > ? AND seq <= ? AND id IS NOT NULL"
        self._there.update(row[0] for row in conn.execute(query, (seen, self._seen)))
        self._next = (self.at, self._dead_at, self._dead_left, 0, 0, self._seen)
        self._is_behind = self._seen < newest
        return not self._is_behind

    def _move(self, conn: sqlite3.Connection) -> None:
        at, dead_at = self._noted(conn)
        rows, seqs, moved = [], [], []
        if self.is_known is None:
            self.is_known = meta.get(conn, self._key) is not None
            if not self.is_known:
                moved = self._keep_room(conn)
                self._carry_settings(conn)
        room = self._room = whole(meta.get(conn, f"room {self._uuid}"))
        settled = conn.execute("SELECT settled FROM cursor").fetchone()[0]
        dead_at, dead_left = self._move_dead(conn, dead_at)
        upto = min(at + self._slice_rows, self.newest)
        gaps: list[tuple[int, int]] = []
        strict = self.counts_gaps
        found = ranges(self.source, at + 1, upto, gaps.append, strict=strict)
        for seq, created, level, payload, checksum, own in found:
            seqs.append(seq)
            id_ = id_of(self._epochs, seq, own)
            if seq not in self._ahead and seq != room and id_ not in self._there and self.wants(seq):
                moved.append(seq)
                place = seq if settled < seq <= room else None
                rows.append((place, *columns_of(created, level, payload, checksum), id_))
        placed = [row for row in rows if row[0] is not None]
        filled = conn.executemany(_INSERT, placed).rowcount if placed else 0
        conn.executemany(_INSERT, [row for row in rows if row[0] is None])
        conn.execute("UPDATE cursor SET consumed = consumed - ?", (filled,))
        newest = conn.execute("SELECT max(seq) FROM entries").fetchone()[0] or 0  # ours need not be looked at
        if strict:
            gaps = gaps_between(seqs, at, upto)
        missing = self.count_missing(conn, gaps, moved, is_last=upto == self.newest)
        self._next = (upto, dead_at, dead_left, len(moved), missing, newest)
        meta.put(conn, self._key, f"{upto} {dead_at}")
        if upto == self.newest and not dead_left:
            self._carry_notes(conn)
            if not self.is_broken and not self.lost(conn):
                meta.put(conn, f"whole {self._uuid}", "1")
        self.note(conn, len(moved), missing)

    def _keep_room(self, conn: sqlite3.Connection) -> list[int]:
        """In a file without entries: the newest one first, so that what is logged from now on comes behind it; its seq.

        The places before it count as settled until they are filled: if this process is killed, nothing waits for them.
        """
        fresh = conn.execute("SELECT NOT EXISTS (SELECT 1 FROM entries) AND settled = 0 FROM cursor").fetchone()[0]
        last = [row for row in ranges(self.source, self.newest, self.newest, strict=True) if row[0] == self.newest]
        if not fresh or self.newest <= self.at or not last or self.newest in self._ahead:
            return []
        seq, created, level, payload, checksum, own = last[0]
        conn.execute(_INSERT, (seq, *columns_of(created, level, payload, checksum), id_of(self._epochs, seq, own)))
        conn.execute("UPDATE cursor SET settled = ?, consumed = ?", (self.at, seq - 1))
        meta.put(conn, f"room {self._uuid}", str(seq))
        return [seq]

    def _noted(self, conn: sqlite3.Connection) -> tuple[int, int]:
        """Seq and rowid up to which they are moved, by another process, or this one before it was killed."""
        at, dead_at = numbers_of(meta.get(conn, self._key))
        return min(max(self.at, at), self.newest), max(self._dead_at, dead_at)

    def noted_at(self, conn: sqlite3.Connection) -> int:
        """The seq up to which they are moved: also of one that this file has no more, but another process had."""
        return numbers_of(meta.get(conn, self._key))[0]

    def _carry_notes(self, conn: sqlite3.Connection) -> None:
        """Of still older files: what was moved from those to this one need not be moved to the next one again."""
        here = {row[0]: numbers_of(row[1]) for row in conn.execute(_NOTES)}
        for key, value in read_all(self.source, _NOTES):
            if numbers_of(value) > here.get(key, (0, 0)):
                meta.put(conn, str(plain(key)), str(plain(value)))

    def _carry_settings(self, conn: sqlite3.Connection) -> None:
        """What the handler noted when it was made; it is not made anew with the file."""
        for key, value in read_all(self.source, _SETTINGS):
            conn.execute("INSERT OR IGNORE INTO meta (key, value) VALUES (?, ?)", (plain(key), plain(value)))

    def _move_dead(self, conn: sqlite3.Connection, at: int) -> tuple[int, bool]:
        query = f"SELECT rowid, {DEAD_COLUMNS} FROM dead_letters WHERE rowid > ? ORDER BY rowid LIMIT ?"  # noqa: S608
        try:
            rows = self.source.execute(query, (at, self._slice_rows)).fetchall()
        except UNREADABLE:
            self.is_broken = True
            return at, False
        if not rows:
            return at, False
        payload = DEAD_COLUMNS.split(", ").index("payload") + 1
        moved = 0
        for row in rows:
            values = [as_bytes(v) if i == payload else plain(v) for i, v in enumerate(row)][1:]
            moved += conn.execute(INSERT_DEAD, values).rowcount
        conn.execute("UPDATE cursor SET dead = dead + ?", (moved,))
        return int(rows[-1][0]), True

    def _commit(self) -> None:
        self.at, self._dead_at, self._dead_left, moved, unreadable, self._seen = self._next
        self.moved += moved
        self.unreadable += unreadable

    def was_whole(self, conn: sqlite3.Connection) -> bool:
        """Whether all of this file was read, by whichever process, in whichever way."""
        return meta.get(conn, f"whole {self._uuid}") is not None

    def lost(self, conn: sqlite3.Connection) -> list[tuple[int, int]]:
        """The spans of seqs that could not be read, by whichever process."""
        return [(int(low), int(high)) for low, high in _SPAN.findall(meta.get(conn, f"lost {self._uuid}") or "")]

    def note_lost(self, conn: sqlite3.Connection, gaps: list[tuple[int, int]]) -> None:
        """Add spans to those."""
        if gaps:
            both = " ".join(f"{low}-{high}" for low, high in sorted({*self.lost(conn), *gaps}))
            meta.put(conn, f"lost {self._uuid}", both)

    # --- for the two kinds ----------------------------------------------------------------------------

    def wants(self, _seq: int) -> bool:
        """Whether an entry is to be moved."""
        return True

    def count_missing(
        self, conn: sqlite3.Connection, gaps: list[tuple[int, int]], _moved: list[int], *, is_last: bool
    ) -> int:
        """How many more could not be read; ``gaps``: the spans of seqs that were not there."""
        self.note_lost(conn, gaps)
        return count(gaps)

    def note(self, conn: sqlite3.Connection, moved: int, unreadable: int) -> None:
        """Write down what people may want to know of a slice, in its transaction."""

    def done(self, store: Store) -> bool:
        """The last slice is committed. False if there may be more later."""
        raise NotImplementedError


class Rescue(Transfer):
    """From the old connection, which nobody else has."""

    def __init__(self, old: Swapped, store: Store) -> None:
        super().__init__(old.conn, str(old.identity), store.connection(), old.epochs)

    def done(self, store: Store) -> bool:
        """See :meth:`Transfer.done`."""
        self.source.close()
        say(
            f"journal {store.path} was removed or replaced while it was open; {self.moved:,} pending records were"
            " copied into the file that is there now"
            + (f", {self.unreadable:,} could not be read" if self.unreadable else "")
        )
        return True
