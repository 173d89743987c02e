"""Making room: what is deleted from a journal, and what is given back to the file system.

Rules
-----
* Prune and shed are the only deletions from ``entries``, and neither ever deletes the newest row: a seq is never used
  twice. Prune takes settled rows older than ``keep_delivered``. Shed makes room when the journal is at ``max_bytes``:
  the least severe, oldest pending entries, each counted by level. The first ones of the line are spared: most likely
  a courier has them in its hands. (If it is a larger batch, nothing is counted twice: see ``Line.settle``.)
* All is done in slices between which callers have their turn: a prune holds the lock for a fraction of a millisecond,
  a shed, which is an emergency, for some 10.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from . import alone, wal

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from .store import Store

PRUNE_ROWS = 100  # per hold of the lock: some 0.3 ms
SHED_ROWS = 500
SHED_SPAN = 5_000  # rows that are looked at, in one hold of the lock
SHED_SHARE = 0.05  # of max_bytes: so much more than needed, so that it is not needed again at once
SHED_SPARES = 1_000  # pending entries at the front that may be in a courier's hands right now, at most
SPARED_SHARE = 0.25  # of max_bytes: the bytes of those, at most
VACUUM_PAGES = 128  # per hold of the lock
VACUUM_FROM = 2_048  # free pages; fewer are kept for reuse


_SPAN_END = "SELECT max(seq) FROM (SELECT seq FROM entries WHERE seq > ? ORDER BY seq LIMIT ?)"


def used_bytes(store: Store) -> int:
    """Bytes in use: pages that are not free, and the WAL."""
    with store.lock, store.reading() as conn:
        pages = conn.execute("PRAGMA page_count").fetchone()[0] - conn.execute("PRAGMA freelist_count").fetchone()[0]
        size: int = pages * conn.execute("PRAGMA page_size").fetchone()[0]
    return size + wal.file_size(store)


def prune_slice(store: Store, keep_seconds: float, rows: int = PRUNE_ROWS) -> int:
    """Delete up to ``rows`` of the oldest settled entries; returns how many."""
    now = time.time()
    with store.lock, alone.committing(store) as commit:
        deleted: int = commit(
            # The plus signs: only the first bound is to be searched by.
            "DELETE FROM entries WHERE seq < (SELECT min(seq) FROM entries) + ?"
            " AND +seq < (SELECT max(seq) FROM entries) AND +seq <= (SELECT settled FROM cursor)"
            # Of another time than this (the clock was set back), or no time at all: its age is unknown, and it goes.
            " AND NOT (coalesce(created, 0) > ? AND coalesce(created, 0) <= ?)",
            (rows, now - keep_seconds, now),
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


def shed(store: Store, max_bytes: int, excess: int = 0, between: Callable[[], None] | None = None) -> int:
    """Drop the least severe, oldest pending entries: ``excess`` bytes and ``SHED_SHARE``; how many were dropped.

    ``between``: called after each slice, without a lock.
    """
    wanted = excess + int(max_bytes * SHED_SHARE)
    dropped = 0
    for level in _pending_levels(store):
        at: int | None = 0
        while wanted > 0 and at is not None:
            count, size, at = _shed_slice(store, level, at, wanted, int(max_bytes * SPARED_SHARE))
            dropped += count
            wanted -= size
            if between is not None:
                between()
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


def _first_unspared(conn: sqlite3.Connection, most_bytes: int) -> int | None:
    """The seq from which on pending entries may be dropped; None if there are no such."""
    spared = 0
    for number, (seq, size) in enumerate(
        conn.execute(
            "SELECT seq, length(CAST(payload AS BLOB)) FROM entries WHERE seq > (SELECT settled FROM cursor)"
            " ORDER BY seq LIMIT ?",
            (SHED_SPARES + 1,),
        )
    ):
        spared += size or 0
        if number >= SHED_SPARES or (spared > most_bytes and number):  # the head itself is spared, however large
            first: int = seq
            return first
    return None


def _shed_slice(store: Store, level: int, at: int, wanted: int, spared_bytes: int) -> tuple[int, int, int | None]:
    """Drop some of those beyond seq ``at``, ``wanted`` bytes of them; how many, how many bytes, and where to go on.

    None: there are no more.
    """
    now = time.time()
    with store.lock, store.transaction() as conn:
        first = _first_unspared(conn, spared_bytes)
        if first is None:
            return 0, 0, None
        at = max(at, first - 1)
        last: int | None = conn.execute(_SPAN_END, (at, SHED_SPAN)).fetchone()[0]
        if last is None:
            return 0, 0, None
        page: int = conn.execute("PRAGMA page_size").fetchone()[0]
        found = conn.execute(
            "SELECT seq, length(CAST(payload AS BLOB)) + 40 FROM entries WHERE seq > ? AND seq <= ? AND level = ?"
            " AND seq < (SELECT max(seq) FROM entries) AND seq NOT IN (SELECT seq FROM ahead) ORDER BY seq LIMIT ?",
            (at, last, level, SHED_ROWS),
        ).fetchall()
        if not found:
            return 0, 0, last
        sizes = list(itertools.accumulate(_stored(size or 0, page) for _, size in found))
        rows = found[: 1 + sum(size < wanted for size in sizes[:-1])]
        conn.executemany("DELETE FROM entries WHERE seq = ?", [(row[0],) for row in rows])
        conn.execute("UPDATE cursor SET consumed = consumed + ?", (len(rows),))
        count_drops(conn, {level: len(rows)}, now)
    go_on = rows[-1][0] if len(rows) < len(found) or len(found) == SHED_ROWS else last
    return len(rows), sizes[len(rows) - 1], go_on


def _stored(size: int, page: int) -> int:
    """What a row takes in the file, about: a long one fills pages of its own (https://sqlite.org/fileformat2.html)."""
    return size if size < page else -(-size // page) * page


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


def note_drops(store: Store, drops: dict[int, int]) -> None:
    """The same in a transaction of its own, for what was dropped before it reached the journal."""
    with store.lock, store.transaction() as conn:
        count_drops(conn, drops, time.time())
