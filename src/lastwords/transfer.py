"""Entries of a file that is not the journal any more, on their way into the one that is.

Theory of operation
-------------------
A journal that was removed, replaced or found damaged may have a week's entries pending: a gigabyte, which takes a
quarter of a minute to copy. So they are moved in slices of some ``AIM_SECONDS``, each a hold of the store's lock and a
commit. What is logged meanwhile comes after them: it waits in the committer's memory buffer, and no caller waits. When
that buffer is half full it is committed in between: out of order is better than lost.

Rules
-----
* An entry keeps its id. Each process that had the old file open moves it, so how far one is, is written down in the
  transaction of the slice, and the others go on from there. One whose id is in the journal is not copied either.
* A range of seqs that cannot be read is halved; a single row that cannot be is counted.
* What is settled stays behind. Dead letters come along.
* A slice that fails is tried again by the keeper; nothing is forgotten before it is committed.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

from .rows import DEAD_COLUMNS, INSERT_DEAD, entry_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .store import Store

AIM_SECONDS = 0.05  # of one slice
FIRST_ROWS = 500  # of the first
MOST_ROWS = 5_000
LOOK_ROWS = 20_000  # whose ids are looked at in one slice
SPAN = 512  # rows in one read
LEAST = 1  # that are left out together
_ROW = "seq, created, level, payload, checksum, id"
_INSERT = "INSERT INTO entries (created, level, payload, checksum, id) VALUES (?, ?, CAST(? AS TEXT), ?, ?)"


def read_all(conn: sqlite3.Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    """The rows of a query, none if the file is too damaged."""
    try:
        return conn.execute(query, values).fetchall()
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return []


def read_number(conn: sqlite3.Connection, query: str) -> int:
    """The number that a query gives, 0 if the file is too damaged."""
    rows = read_all(conn, query)
    value = rows[0][0] if rows else None
    return value if isinstance(value, int) else 0


def ranges(
    conn: sqlite3.Connection, first: int, last: int, on_error: Callable[[int], None] | None = None
) -> Iterator[tuple[Any, ...]]:
    """Rows from ``first`` to ``last``; a range that does not read is halved, a single row that does not is left out."""
    todo = [(start, min(start + SPAN - 1, last)) for start in range(first, last + 1, SPAN)]
    todo.reverse()
    while todo:
        low, high = todo.pop()
        try:
            found = conn.execute(
                f"SELECT {_ROW} FROM entries WHERE seq BETWEEN ? AND ? ORDER BY seq",  # noqa: S608
                (low, high),
            ).fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            if high - low >= LEAST:
                middle = (low + high) // 2
                todo += [(middle + 1, high), (low, middle)]
            elif on_error is not None:
                on_error(high - low + 1)
            continue
        yield from (row for row in found if None not in row[:5])  # no row has that, but one that is damaged


def _raw(value: object) -> bytes:
    """As bytes: a damaged payload need not be UTF-8, and its checksum tells later."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _id(epochs: list[tuple[int, str]], seq: int, own: object) -> str | None:
    return entry_id(epochs, seq, own) if epochs or (isinstance(own, str) and own.isascii()) else None


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value


class Transfer:
    """One file's. The store's lock is held around every call. ``at``: the seq up to which it is done already."""

    counts_gaps = False  # a seq that is not there was unreadable: only what was shed is not there in a whole file

    def __init__(self, source: sqlite3.Connection, at: int | None = None) -> None:
        self.source = source
        self._epochs = read_all(source, "SELECT first_seq, uuid FROM epochs ORDER BY first_seq")
        settled = read_number(source, "SELECT settled FROM cursor")
        self.newest = max(read_number(source, "SELECT max(seq) FROM entries"), settled)
        self.at = at if at is not None else max(settled, read_number(source, "SELECT min(seq) FROM entries") - 1)
        self._ahead = {row[0] for row in read_all(source, "SELECT seq FROM ahead")}
        self._dead_at: int | None = 0
        self._there: set[str] = set()  # ids in the journal
        self._seen = -1  # the seq up to which they were looked at
        self._slice_rows = FIRST_ROWS
        self.moved = 0
        self.unreadable = 0

    @property
    def left(self) -> int:
        """How many seqs are still to be looked at."""
        return self.newest - self.at

    def step(self, store: Store) -> bool:
        """Move a slice; True while there is more. Raises what SQLite raises, with nothing moved."""
        began = time.monotonic()
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
                store.drop_commit_lock()
        self._commit()
        share = AIM_SECONDS / max(time.monotonic() - began, 0.001)
        self._slice_rows = max(1, min(MOST_ROWS, int(self._slice_rows * min(share, 2.0))))
        return self._is_behind or self._dead_at is not None or self.at < self.newest

    # What a slice changes here counts once it is committed.

    def _look(self, conn: sqlite3.Connection) -> bool:
        """See which ids are there; False if there are more to look at first."""
        first, newest = conn.execute("SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM entries").fetchone()
        seen = max(self._seen, first - 1)
        self._seen = min(seen + LOOK_ROWS, newest)
        query = "SELECT id FROM entries WHERE seq > ? AND seq <= ? AND id IS NOT NULL"
        self._there.update(row[0] for row in conn.execute(query, (seen, self._seen)))
        self._next = (self.at, self._dead_at, 0, 0, self._seen)
        self._is_behind = self._seen < newest
        return not self._is_behind

    def _move(self, conn: sqlite3.Connection) -> None:
        dead_at = self._move_dead(conn)
        at = min(max(self.at, self.noted(conn)), self.newest)
        upto = min(at + self._slice_rows, self.newest)
        failed: list[int] = []
        rows, seen = [], 0
        for seq, created, level, payload, checksum, own in ranges(self.source, at + 1, upto, failed.append):
            seen += 1
            id_ = _id(self._epochs, seq, own)
            if seq not in self._ahead and id_ not in self._there:
                rows.append((_plain(created), _plain(level), _raw(payload), _plain(checksum), id_))
        conn.executemany(_INSERT, rows)
        newest = conn.execute("SELECT max(seq) FROM entries").fetchone()[0] or 0  # ours need not be looked at
        missing = upto - at - seen if self.counts_gaps else sum(failed)
        self._next = (upto, dead_at, len(rows), missing, newest)
        self.note(conn, upto, self.moved + len(rows), self.unreadable + missing)

    def _move_dead(self, conn: sqlite3.Connection) -> int | None:
        if self._dead_at is None:
            return None
        rows = read_all(
            self.source,
            f"SELECT rowid, {DEAD_COLUMNS} FROM dead_letters WHERE rowid > ? ORDER BY rowid LIMIT ?",  # noqa: S608
            self._dead_at,
            self._slice_rows,
        )
        if not rows:
            return None
        payload = DEAD_COLUMNS.split(", ").index("payload") + 1
        moved = 0
        for row in rows:
            values = [_raw(v) if i == payload else _plain(v) for i, v in enumerate(row)][1:]
            moved += conn.execute(INSERT_DEAD, values).rowcount
        conn.execute("UPDATE cursor SET dead = dead + ?", (moved,))
        return int(rows[-1][0])

    def _commit(self) -> None:
        self.at, self._dead_at, moved, unreadable, self._seen = self._next
        self.moved += moved
        self.unreadable += unreadable

    # --- for the two kinds ----------------------------------------------------------------------------

    def noted(self, conn: sqlite3.Connection) -> int:
        """The seq up to which another process has moved them; 0: nothing is known."""
        return 0

    def note(self, conn: sqlite3.Connection, at: int, moved: int, unreadable: int) -> None:
        """Write down how far it is, in the transaction of the slice."""

    def done(self, store: Store) -> None:
        """The last slice is committed."""
        raise NotImplementedError

    def why(self) -> str:
        """For callers whose records wait, and for people."""
        raise NotImplementedError
