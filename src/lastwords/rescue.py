"""A journal that was removed or replaced under a live connection: what is pending moves into the new file.

Inserts into a removed file go on succeeding, into the void. The old connection still sees everything, so the pending
entries and the dead letters are copied through it, with their ids, into the file that is at the path now (made anew if
there is none). What was committed to the old file and is not yet copied dies with this process; the keeper looks at
least every ``sync_interval`` while records arrive, and a fork looks before it closes the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import place, process
from .rows import DEAD_COLUMNS, INSERT_DEAD, entry_id

if TYPE_CHECKING:
    import sqlite3

    from .store import Store


def is_replaced(store: Store) -> bool:
    """True if the file at the path is not the one that the open connection has. A stat, no lock."""
    return store.is_open and store.identity is not None and place.identify(store.path) != store.identity


def rescue_if_replaced(store: Store) -> bool:
    """Move to the file at the path if it is another one; True if that was so. Lock held by the caller or free."""
    if not is_replaced(store):
        return False
    with store.lock:
        if not is_replaced(store):  # another thread was faster
            return False
        old = store.swap_out()
        try:
            count = _copy(store, old.conn, old.epochs, store.connection())
        except BaseException:
            store.swap_back(old)  # nothing lost while this process lives; the keeper tries again
            raise
        old.conn.close()
    process.say(
        f"journal {store.path} was removed or replaced while it was open; {count:,} pending records were copied"
        " into the file that is there now"
    )
    return True


def _copy(store: Store, old: sqlite3.Connection, epochs: list[tuple[int, str]], new: sqlite3.Connection) -> int:
    pending = old.execute(
        "SELECT created, level, payload, checksum, seq, id FROM entries WHERE seq > (SELECT settled FROM cursor)"
        " AND seq NOT IN (SELECT seq FROM ahead) ORDER BY seq"
    )
    count = 0
    store.hold_commit_lock()
    try:
        store.set_synchronous(new, full=True)
        new.execute("BEGIN IMMEDIATE")
        # Every process that had the old file open copies it.
        there = {row[0] for row in new.execute("SELECT id FROM entries WHERE id IS NOT NULL")}
        for created, level, payload, checksum, seq, own in pending:
            id_ = entry_id(epochs, seq, own)
            if id_ in there:
                continue
            new.execute(
                "INSERT INTO entries (created, level, payload, checksum, id) VALUES (?, ?, CAST(? AS TEXT), ?, ?)",
                # As bytes: a damaged payload need not be UTF-8. Its checksum tells later.
                (created, level, str(payload).encode("utf-8", "surrogateescape"), checksum, id_),
            )
            count += 1
        dead = 0
        for row in old.execute(f"SELECT {DEAD_COLUMNS} FROM dead_letters"):  # noqa: S608 - constant columns
            dead += new.execute(INSERT_DEAD, row).rowcount
        new.execute("UPDATE cursor SET dead = dead + ?", (dead,))
        new.execute("COMMIT")
    finally:
        if new.in_transaction:
            new.execute("ROLLBACK")
        store.drop_commit_lock()
    return count
