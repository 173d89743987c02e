"""Making room: what is deleted from a journal, and what is given back to the file system.

Rules
-----
* Prune and shed are the only deletions from ``entries``, and neither ever deletes the newest row: a seq is never used
  twice. Prune takes settled rows older than ``keep_delivered``. Shed makes room when the journal is at ``max_bytes``:
  the least severe, oldest pending entries, 5 % at a time, each counted by level.
* All is done in slices that hold the lock for a fraction of a millisecond, so that callers hardly wait.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import wal

if TYPE_CHECKING:
    import sqlite3

    from .store import Store

PRUNE_ROWS = 50  # per hold of the lock: some 0.1 ms
SHED_ROWS = 500
SHED_SPAN = 5_000  # rows that are looked at, in one hold of the lock
SHED_SHARE = 0.05  # of max_bytes
SHED_SPARES = 1_000  # pending entries at the front that may be in a courier's hands right now
VACUUM_PAGES = 64  # per hold of the lock
VACUUM_FROM = 1_024  # free pages; fewer are kept for reuse


_SPAN_END = "SELECT max(seq) FROM (SELECT seq FROM entries WHERE seq > ? ORDER BY seq LIMIT ?)"


def used_bytes(store: Store) -> int:
    """Bytes in use: pages that are not free, and the WAL."""
    with store.lock, store.reading() as conn:
        pages = conn.execute("PRAGMA page_count").fetchone()[0] - conn.execute("PRAGMA freelist_count").fetchone()[0]
        size: int = pages * conn.execute("PRAGMA page_size").fetchone()[0]
    return size + wal.file_size(store)


def prune_slice(store: Store, keep_seconds: float, rows: int = PRUNE_ROWS) -> int:
    """Delete up to ``rows`` of the oldest settled entries; how many it were."""
    now = time.time()
    with store.lock, store.writing() as conn:
        store.set_synchronous(conn, full=False)
        first = conn.execute("SELECT min(seq) FROM entries").fetchone()[0]
        if first is None:
            return 0
        deleted: int = conn.execute(
            "DELETE FROM entries WHERE seq BETWEEN ? AND ? AND seq < (SELECT max(seq) FROM entries)"
            " AND (seq <= (SELECT settled FROM cursor))"
            # Of another time than this (the clock was set back), or no time at all: its age is unknown, and it goes.
            " AND NOT (coalesce(created, 0) > ? AND coalesce(created, 0) <= ?)",
            (first, first + rows - 1, now - keep_seconds, now),
        ).rowcount
    return deleted


def vacuum_slice(store: Store, spare: int = VACUUM_FROM) -> bool:
    """Give some free pages back to the file system, but for ``spare``; True if there is more to give."""
    with store.lock, store.writing() as conn:
        free: int = conn.execute("PRAGMA freelist_count").fetchone()[0]
        if free <= spare:
            return False
        store.set_synchronous(conn, full=False)
        # Not execute(): it makes one step, and that is one page; the statement has no rows to fetch the others with.
        conn.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
        after: int = conn.execute("PRAGMA freelist_count").fetchone()[0]
    return spare < after < free


def shed(store: Store, max_bytes: int) -> int:
    """Drop the least severe, oldest pending entries, ``SHED_SHARE`` of ``max_bytes`` at a time; how many it were."""
    wanted = int(max_bytes * SHED_SHARE)
    dropped = 0
    for level in _pending_levels(store):
        at: int | None = 0
        while wanted > 0 and at is not None:
            count, size, at = _shed_slice(store, level, at)
            dropped += count
            wanted -= size
    return dropped


def _pending_levels(store: Store) -> list[int]:
    """The levels there are among pending entries, least severe first; scanned in slices."""
    levels: set[int] = set()
    with store.lock, store.reading() as conn:
        at = conn.execute("SELECT settled FROM cursor").fetchone()[0]
    while True:
        with store.lock, store.reading() as conn:
            last = conn.execute(_SPAN_END, (at, SHED_SPAN)).fetchone()[0]
            if last is None:
                return sorted(levels)
            found = conn.execute("SELECT DISTINCT level FROM entries WHERE seq > ? AND seq <= ?", (at, last)).fetchall()
        levels.update(row[0] for row in found if isinstance(row[0], int))  # else it is damaged
        at = last


def _shed_slice(store: Store, level: int, at: int = 0) -> tuple[int, int, int | None]:
    """Drop some of those beyond seq ``at``; how many, their bytes, and where to go on (None: there are no more)."""
    now = time.time()
    with store.lock, store.transaction() as conn:
        spared = conn.execute(
            "SELECT seq FROM entries WHERE seq > (SELECT settled FROM cursor) ORDER BY seq LIMIT 1 OFFSET ?",
            (SHED_SPARES,),
        ).fetchone()
        if spared is None:
            return 0, 0, None
        at = max(at, spared[0] - 1)
        last: int | None = conn.execute(_SPAN_END, (at, SHED_SPAN)).fetchone()[0]
        if last is None:
            return 0, 0, None
        rows = conn.execute(
            "SELECT seq, length(CAST(payload AS BLOB)) + 40 FROM entries WHERE seq > ? AND seq <= ? AND level = ?"
            " AND seq < (SELECT max(seq) FROM entries) AND seq NOT IN (SELECT seq FROM ahead) ORDER BY seq LIMIT ?",
            (at, last, level, SHED_ROWS),
        ).fetchall()
        if not rows:
            return 0, 0, last
        conn.executemany("DELETE FROM entries WHERE seq = ?", [(row[0],) for row in rows])
        conn.execute("UPDATE cursor SET consumed = consumed + ?", (len(rows),))
        count_drops(conn, {level: len(rows)}, now)
    return len(rows), sum(row[1] for row in rows), rows[-1][0] if len(rows) == SHED_ROWS else last


def count_drops(conn: sqlite3.Connection, drops: dict[int, int], now: float) -> None:
    """Add ``drops``, level to how many, to what was dropped (in a transaction)."""
    for level, count in drops.items():
        if count:
            conn.execute(
                "INSERT INTO drops (level, count, first_at, last_at) VALUES (:level, :count, :now, :now)"
                " ON CONFLICT (level) DO UPDATE SET count = count + :count, last_at = :now,"
                " first_at = CASE WHEN told = count THEN :now ELSE first_at END",
                {"level": level, "count": count, "now": now},
            )
    conn.execute("UPDATE cursor SET dropped = dropped + ?", (sum(drops.values()),))
