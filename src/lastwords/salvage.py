"""A damaged journal is set aside, and what can be read of it goes into a new one, with its ids.

Rules
-----
* Only a handler does this, never a command that looks. And only to a file that has been a journal: a ``.commit`` file
  lies beside it. Whatever else is at the path (a mistyped path!) is refused and left alone.
* Nothing is deleted: the file and its ``-wal`` are renamed to ``<name>.damaged-<UTC time>``.
* Rows are read by ranges of seqs, and around a damaged page by halves of halves. What was settled, as far as the
  cursor can be read, is not delivered again; if it cannot, everything readable is pending: at least once.
* Each row carries a checksum, so a row that reads but was changed becomes a dead letter later, with the reason.

``meta`` of the new journal says ``damaged_at``, ``damaged_file``, ``salvaged`` and ``unreadable`` (seqs that are known
to have existed and could not be read; a torn ``-wal`` may have held more, which nobody can count).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from . import place, process
from .commitlock import SUFFIX as COMMIT_SUFFIX
from .errors import JournalBusy
from .rows import DEAD_COLUMNS, INSERT_DEAD, entry_id
from .store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .errors import JournalDamaged

SPAN = 512  # rows in one read
LOCK_SECONDS = 1.0  # to wait for the commit lock
_ROW = "seq, created, level, payload, checksum, id"


class Found(NamedTuple):
    """What could be read of a damaged journal."""

    rows: list[tuple[float, int, str, int, str | None]]  # created, level, payload, checksum, id
    dead: list[tuple[Any, ...]]
    unreadable: int


def was_a_journal(path: str) -> bool:
    """True if there is reason to believe that the file at ``path`` was made by us."""
    return os.path.exists(path + COMMIT_SUFFIX)


def set_aside(path: str) -> str:
    """Rename the file and its WAL; the new name. The ``-shm`` is only a cache."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = f"{path}.damaged-{stamp}"
    number = 1
    while os.path.lexists(aside):
        aside = f"{path}.damaged-{stamp}.{number}"
        number += 1
    with suppress(FileNotFoundError):
        os.rename(path + "-wal", aside + "-wal")
    os.rename(path, aside)
    with suppress(FileNotFoundError):
        os.unlink(path + "-shm")
    place.sync_folder(path)
    return aside


def read_damaged(path: str) -> Found:
    """Read what can be read; never raises for damage."""
    conn = sqlite3.connect(path, isolation_level=None)
    try:
        conn.execute("PRAGMA trusted_schema=OFF")
        return _read(conn)
    except sqlite3.DatabaseError:
        return Found([], [], 0)
    finally:
        conn.close()


def _read(conn: sqlite3.Connection) -> Found:
    settled = _first(conn, "SELECT settled FROM cursor", 0)
    ahead = {row[0] for row in _all(conn, "SELECT seq FROM ahead")}
    epochs = _all(conn, "SELECT first_seq, uuid FROM epochs ORDER BY first_seq")
    newest = max(_first(conn, "SELECT max(seq) FROM entries", 0), settled)
    rows: list[tuple[float, int, str, int, str | None]] = []
    seen = 0
    for seq, created, level, payload, checksum, own in _ranges(conn, settled + 1, newest):
        seen += 1
        if seq in ahead:
            continue
        if own is None and epochs:
            own = entry_id(epochs, seq, own)  # noqa: PLW2901
        rows.append((created, level, payload, checksum, own))
    dead = _all(conn, f"SELECT {DEAD_COLUMNS} FROM dead_letters")  # noqa: S608 - constant columns
    return Found(rows, dead, max(0, newest - settled - seen))


def _ranges(conn: sqlite3.Connection, first: int, last: int) -> Iterator[tuple[int, float, int, str, int, str | None]]:
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
            if low < high:
                middle = (low + high) // 2
                todo += [(middle + 1, high), (low, middle)]
            continue
        for row in found:
            if type(row[1]) is float and type(row[2]) is int and type(row[3]) is str and type(row[4]) is int:
                yield row


def _first(conn: sqlite3.Connection, query: str, default: int) -> int:
    rows = _all(conn, query)
    value = rows[0][0] if rows else None
    return value if isinstance(value, int) else default


def _all(conn: sqlite3.Connection, query: str) -> list[tuple[Any, ...]]:
    try:
        return conn.execute(query).fetchall()
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return []


def open_repaired(path: str, mode: int, error: JournalDamaged) -> Store:
    """Open the damaged journal at ``path`` for a handler: set aside, salvaged, new. ``error`` if it is not ours."""
    if not was_a_journal(path):
        raise error
    aside = _set_aside_once(path, place.identify(path))
    store = Store(path, mode=mode)
    if aside is not None:
        with store.lock:
            _adopt(store, aside, error.problem)
    return store


def repair_open(store: Store) -> None:
    """The keeper's: the file under an open connection turned out damaged. Raises what opening the new one raises."""
    reason, identity = store.damaged, store.identity
    with store.lock:
        if reason is None:
            return
        store.give_up()
        aside = _set_aside_once(store.path, identity)
        store.damaged = None
        store.connection()
        if aside is not None:
            _adopt(store, aside, reason)


def _lock_soon(fd: int, path: str) -> None:
    """Its holder may be stopped, and callers wait for us."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise JournalBusy(path, "another process holds its commit lock", "see `ps` for state T") from None
            time.sleep(0.01)
        else:
            return


def _set_aside_once(path: str, identity: place.Identity | None) -> str | None:
    """Set aside the file that was found damaged; None if another process has done it meanwhile."""
    fd = place.open_side_file(path, COMMIT_SUFFIX)
    try:
        _lock_soon(fd, path)
        if identity is None or place.identify(path) != identity:
            return None
        return set_aside(path)
    finally:
        os.close(fd)


def _adopt(store: Store, aside: str, reason: str) -> None:
    found = read_damaged(aside)
    new = store.connection()
    store.hold_commit_lock()
    try:
        _write(store, new, found, aside)
    finally:
        store.drop_commit_lock()
    process.say(
        f"journal {store.path} was damaged ({reason}) and is set aside as {aside}; {len(found.rows):,} pending records"
        f" were salvaged, {found.unreadable:,} could not be read"
    )


def _write(store: Store, new: sqlite3.Connection, found: Found, aside: str) -> None:
    store.set_synchronous(new, full=True)
    try:
        new.execute("BEGIN IMMEDIATE")
        new.executemany(
            "INSERT INTO entries (created, level, payload, checksum, id) VALUES (?, ?, ?, ?, ?)", found.rows
        )
        new.executemany(INSERT_DEAD, found.dead)
        new.execute("UPDATE cursor SET dead = (SELECT count(*) FROM dead_letters)")
        facts = {
            "damaged_at": str(time.time()),
            "damaged_file": aside,
            "salvaged": str(len(found.rows)),
            "unreadable": str(found.unreadable),
        }
        new.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", list(facts.items()))
        new.execute("COMMIT")
    finally:
        if new.in_transaction:
            new.execute("ROLLBACK")
