"""Entries of a file that is not the journal any more, on their way into the one that is.

Theory of operation
-------------------
A journal that was removed, replaced or found damaged may have a week's entries pending: a gigabyte, which takes a
quarter of a minute to copy. So they are moved in slices of some ``AIM_SECONDS``, each a hold of the store's lock and a
commit; what is moved is read before the lock is taken. The commits are not synced each: before a file is given up, all
that came of it is.

What is logged meanwhile is committed at once, behind them: the first slice puts the newest entry into the new
file, at its own seq, which keeps room for the others before it. They are filled in at their own seqs while this
process's courier waits. One whose place the cursor has passed (another process delivers), or for which there is no
room (the path holds another journal with entries of its own), is appended with its id.

Rules
-----
* An entry keeps its id. Each process that had the old file open moves it, so how far one is, is written down in the
  transaction of the slice, and the others go on from there; the note moves along with the last slice. One whose id is
  in the journal is not copied either, nor one that it has, or had, of its own: what was put in its place is a backup.
* What cannot be read is left out, see ``old_file``, and counted.
* What is settled stays behind. Dead letters come along.
* A slice that fails is tried again by the keeper; nothing is forgotten before it is committed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..runtime.clock import monotonic
from ..runtime.stderr import say
from . import epochs, meta
from .old_file import OldFile, count, whole, without
from .rows import INSERT_DEAD, entry_id

if TYPE_CHECKING:
    import sqlite3

    from .old_file import Rows, Span
    from .sqlite_files import Swapped
    from .store import Store

    _Fetched = tuple[OldFile, int, int, Rows]  # from where, the first seq and the last

AIM_SECONDS = 0.01  # of one slice
FIRST_ROWS = 200  # of the first
MOST_ROWS = 5_000
LEAST_ROWS = 20  # on a busy machine each slice takes its time, however small it is
LOOK_ROWS = 4_000  # whose ids are looked at in one slice
_SPAN = r"([0-9]{1,18})-([0-9]{1,18})"
_NOTE = r"([0-9]{1,18}) ([0-9]{1,18})"
_INSERT = (
    "INSERT OR IGNORE INTO entries (seq, created, level, payload, checksum, id) VALUES (?, ?, ?, CAST(? AS TEXT), ?, ?)"
)


class Transfer:
    """One file's. The store's lock is held around every call but of ``fetch``, ``close`` and ``done``.

    ``into``: the journal, for what is known there.
    """

    strict = False  # whether a seq that is not there was unreadable: only what was shed is not there in a whole file
    is_raw = False  # its rows were found in the pages, when those that SQLite reads had been moved

    def __init__(self, old: OldFile, into: sqlite3.Connection) -> None:
        self.moved = 0
        self.counted = 0  # up to this seq, what is not there is in ``lost`` already
        self.end = 0  # up to this seq there were entries; 0 if that is not known
        self.noted = 0  # up to this seq they are moved: another process may have had more than this file has now
        self._conns: list[sqlite3.Connection] = []  # what was turned to
        self.turn_to(old, into)

    def close(self) -> None:
        """All is done, and nobody is reading: close what it came from."""
        for conn in self._conns:
            conn.close()

    def turn_to(self, old: OldFile, into: sqlite3.Connection) -> None:
        """Move what ``old`` has, from the beginning, or from where it is noted to be."""
        self.old = old
        self._conns.append(old.conn)
        # The note of how far they are is this file's and no other's; a device and an inode would be used again.
        self._key = f"moved {'raw ' if self.is_raw else ''}{old.uuid}"
        self.at, self._dead_at = old.settled, 0  # the seq and the rowid up to which they are moved
        self.at, self._dead_at = self._noted(into)
        self._dead_left = True
        self._there: set[str] = set()  # ids in the journal
        self._seen = -1  # the seq up to which they were looked at
        self._slice_rows = FIRST_ROWS
        self._fetched: _Fetched | None = None
        self._epochs: list[tuple[int, str]] = []  # of the journal
        self._room = 0  # the seq of the newest entry, if it is there already
        self.is_known: bool | None = None  # some of it was moved before; known with the first slice

    @property
    def left(self) -> int:
        """How many seqs are still to be looked at."""
        return self.old.newest - self.at - int(self._room > self.at)

    def fetch(self) -> None:
        """Read what the next slice moves: without the store's lock, which nobody has to wait for meanwhile."""
        old, first, last = self.old, self.at + 1, min(self.at + self._slice_rows, self.old.newest)
        self._fetched = (old, first, last, old.rows(first, last, strict=self.strict)) if first <= last else None

    def _rows(self, first: int, last: int) -> Rows:
        fetched, self._fetched = self._fetched, None
        if fetched is not None and fetched[:3] == (self.old, first, last):
            return fetched[3]
        return self.old.rows(first, last, strict=self.strict)

    def step(self, store: Store) -> bool:
        """Move a slice; True while there is more. Raises JournalError, with nothing moved."""
        began = monotonic()
        try:
            with store.transaction() as conn:
                done = self._slice(conn)
        finally:
            store.commit_lock.drop()  # also inside another use: the next slice may be far
        moved, self.at, self._dead_at, self._dead_left, self._seen, is_behind = done  # now it is committed
        self.moved += moved
        share = AIM_SECONDS / max(monotonic() - began, 0.001)
        self._slice_rows = min(MOST_ROWS, max(LEAST_ROWS, int(self._slice_rows * min(share, 2.0))))
        return is_behind or self._dead_left or self.at < self.old.newest

    def _slice(self, conn: sqlite3.Connection) -> tuple[int, int, int, bool, int, bool]:
        """How many were moved, and where to go on. First the ids that are there are read, in slices, too."""
        # Each by itself: together they are a scan of all that is moved already, for every slice.
        first = conn.execute("SELECT coalesce(min(seq), 0) FROM entries").fetchone()[0]
        newest = conn.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()[0]
        seen, upto = max(self._seen, first - 1), min(max(self._seen, first - 1) + LOOK_ROWS, newest)
        query = "SELECT id FROM entries WHERE seq > ? AND seq <= ? AND id IS NOT NULL"
        self._there.update(row[0] for row in conn.execute(query, (seen, upto)))
        if upto < newest:
            return 0, self.at, self._dead_at, self._dead_left, upto, True
        moved, at, dead_at, dead_left = self._move(conn)
        seen = conn.execute("SELECT max(seq) FROM entries").fetchone()[0] or 0  # ours need not be looked at
        return moved, at, dead_at, dead_left, seen, False

    def _move(self, conn: sqlite3.Connection) -> tuple[int, int, int, bool]:
        at, dead_at = self._noted(conn)
        moved, old = 0, self.old
        if self.is_known is None:
            self.is_known = meta.get(conn, self._key) is not None
            if not self.is_known:
                moved = self._keep_room(conn)
                query = "INSERT OR IGNORE INTO meta (key, value) VALUES (?, ?)"
                conn.executemany(query, old.settings())
        self._room = whole(meta.get(conn, f"room {old.uuid}"))
        dead_at, dead_left = self._move_dead(conn, dead_at)
        upto = min(at + self._slice_rows, old.newest)
        rows, gaps = self._rows(at + 1, upto)
        moved += self._insert(conn, rows)
        lost, before = self._lost_now(conn, [row[0] for row in rows], gaps, is_last=upto == old.newest)
        meta.put(conn, self._key, f"{upto} {dead_at}")
        if upto == old.newest and not dead_left:
            self._carry_notes(conn)
            if not old.is_broken and not lost:
                meta.put(conn, f"whole {old.uuid}", "1")
        self.note(conn, moved, lost, before)
        return moved, upto, dead_at, dead_left

    def _insert(self, conn: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> int:
        """Those that are not there yet: at their own seqs, or at the end."""
        settled = conn.execute("SELECT settled FROM cursor").fetchone()[0]
        placed, appended = [], []
        known = self._of_its_own(conn, rows, settled) | self.old.ahead | {self._room}
        for row in rows:
            seq, copy = row[0], self.old.copy_of(row)
            if seq in known or copy[-1] in self._there or not self.wants(seq):
                continue
            if settled < seq <= self._room:
                placed.append((seq, *copy))
            else:
                appended.append((None, *copy))
        filled = conn.executemany(_INSERT, placed).rowcount if placed else 0
        conn.executemany(_INSERT, appended)
        conn.execute("UPDATE cursor SET consumed = consumed - ?", (filled,))
        return len(placed) + len(appended)

    def _of_its_own(self, conn: sqlite3.Connection, rows: list[tuple[Any, ...]], settled: int) -> set[int]:
        """The seqs that the journal has, or has settled, under the same epoch: it was copied from this file."""
        if not rows:
            return set()
        own_epochs = self._epochs = epochs.read(conn, self._epochs)
        if not {uuid for _, uuid in own_epochs} & {uuid for _, uuid in self.old.epochs}:
            return set()
        query = "SELECT seq FROM entries WHERE seq BETWEEN ? AND ? AND id IS NULL"
        there = {row[0] for row in conn.execute(query, (rows[0][0], rows[-1][0]))}
        return {
            seq
            for seq, *_, own in rows
            if (seq <= settled or seq in there)
            and entry_id(own_epochs, seq, None) == entry_id(self.old.epochs, seq, own)
        }

    def _keep_room(self, conn: sqlite3.Connection) -> int:
        """In a file without entries: the newest one first, so that what is logged from now on comes behind it.

        The places before it count as settled until they are filled: if this process is killed, nothing waits for them.
        """
        newest = self.old.newest
        fresh = conn.execute("SELECT NOT EXISTS (SELECT 1 FROM entries) AND settled = 0 FROM cursor").fetchone()[0]
        rows, _ = self.old.rows(newest, newest, strict=True)
        if not fresh or newest <= self.at or not rows or newest in self.old.ahead:
            return 0
        conn.execute(_INSERT, (newest, *self.old.copy_of(rows[0])))
        conn.execute("UPDATE cursor SET settled = ?, consumed = ?", (self.at, newest - 1))
        meta.put(conn, f"room {self.old.uuid}", str(newest))
        return 1

    def _noted(self, conn: sqlite3.Connection) -> tuple[int, int]:
        """Seq and rowid up to which they are moved, by another process, or this one before it was killed."""
        self.noted, dead_at = _numbers(meta.get(conn, self._key))
        return min(max(self.at, self.noted), self.old.newest), max(self._dead_at, dead_at)

    def _carry_notes(self, conn: sqlite3.Connection) -> None:
        """Of still older files: what was moved from those to this one need not be moved to the next one again."""
        for key, value in self.old.notes():
            if _numbers(value) > _numbers(meta.get(conn, key)):
                meta.put(conn, key, value)

    def _move_dead(self, conn: sqlite3.Connection, at: int) -> tuple[int, bool]:
        rows = self.old.dead(at, self._slice_rows)
        if not rows:
            return at, False
        moved = sum(conn.execute(INSERT_DEAD, row[1:]).rowcount for row in rows)
        conn.execute("UPDATE cursor SET dead = dead + ?", (moved,))
        return int(str(rows[-1][0])), True

    # --- what could not be read -------------------------------------------------------------------------

    def was_whole(self, conn: sqlite3.Connection) -> bool:
        """Whether all of this file was read, by whichever process, in whichever way."""
        return meta.get(conn, f"whole {self.old.uuid}") is not None

    def lost(self, conn: sqlite3.Connection) -> list[Span]:
        """The spans of seqs that nobody has read so far, in order, by whichever process."""
        return [(int(low), int(high)) for low, high in re.findall(_SPAN, meta.get(conn, f"lost {self.old.uuid}") or "")]

    def _lost_now(
        self, conn: sqlite3.Connection, seqs: list[int], gaps: list[Span], *, is_last: bool
    ) -> tuple[list[Span], list[Span]]:
        """The list after a slice in which ``seqs`` were read and ``gaps`` were not; and the list before it."""
        before = self.lost(conn)
        new = [(max(low, self.counted + 1), high) for low, high in gaps if high > self.counted]
        behind = max(self.old.newest, self.counted) + 1
        if is_last and behind <= self.end:
            new.append((behind, self.end))
        lost = sorted({*without(before, sorted(seqs)), *new})
        if lost != before:
            meta.put(conn, f"lost {self.old.uuid}", " ".join(f"{low}-{high}" for low, high in lost))
        return lost, before

    # --- for the two kinds ----------------------------------------------------------------------------

    def wants(self, _seq: int) -> bool:
        """Whether an entry is to be moved."""
        return True

    def note(self, conn: sqlite3.Connection, moved: int, lost: list[Span], before: list[Span]) -> None:
        """Write down what people may want to know of a slice, in its transaction."""

    def done(self, store: Store) -> bool:
        """The last slice is committed. False if there may be more later."""
        raise NotImplementedError


def _numbers(note: object) -> tuple[int, int]:
    found = re.fullmatch(_NOTE, str(note))
    return (int(found[1]), int(found[2])) if found else (0, 0)


class Rescue(Transfer):
    """From the old connection, which nobody else has."""

    def __init__(self, old: Swapped, store: Store) -> None:
        self._lost = 0
        self._files = old.sqlite_files
        with store.explaining:
            super().__init__(OldFile(old.conn, str(old.identity), old.epochs), store.connection())

    def close(self) -> None:
        """See :meth:`Transfer.close`."""
        with self._files.kept():
            super().close()

    def note(self, conn: sqlite3.Connection, moved: int, lost: list[Span], before: list[Span]) -> None:
        """See :meth:`Transfer.note`."""
        self._lost = count(lost)

    def done(self, store: Store) -> bool:
        """See :meth:`Transfer.done`."""
        say(
            f"journal {store.path} was removed or replaced while it was open; {self.moved:,} pending records were"
            " copied into the file that is there now" + (f", {self._lost:,} could not be read" if self._lost else "")
        )
        return True
