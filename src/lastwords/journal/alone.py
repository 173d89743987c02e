"""What delivery and upkeep do at each turn, through the snapshot of a process that writes alone: see ``snapshot``.

Rules
-----
* A snapshot that is let go costs two commits of callers, and four more until it is taken again. So what comes in
  between all the time does not let it go: the courier's reads and its marks, and the keeper's prunes.
* A read sees what this process has committed, and perhaps not yet what another one has. Whoever is to know that nothing
  is left asks outside (``Line.has_pending``).
* A commit fails at once if another process has committed since, nothing written; it is made the long way then, as any
  commit is where no snapshot is held. It is one statement, and not synced.
* ``with store.lock, reading(store) as conn``, as the store's own: a generator must not hold the lock.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .store import Store


@contextmanager
def reading(store: Store) -> Iterator[sqlite3.Connection]:
    """The connection, for SELECTs of a few microseconds (lock held)."""
    with store.explaining:
        try:
            yield _in_snapshot(store) or store.connection()
        finally:
            store._release()


@contextmanager
def committing(store: Store) -> Iterator[Callable[[str, Sequence[object]], sqlite3.Cursor]]:
    """How to commit a statement with its values (lock held)."""
    with store.explaining:
        try:
            yield partial(_commit, store)
        finally:
            store._release()


def _in_snapshot(store: Store) -> sqlite3.Connection | None:
    return store._conn if store.snapshot.is_held and store.sqlite_files.are_ours() else None


def _commit(store: Store, statement: str, values: Sequence[object]) -> sqlite3.Cursor:
    conn = _in_snapshot(store)
    if conn is not None:
        try:
            return conn.execute(statement, values)
        except sqlite3.Error:
            store.snapshot.step_back()  # another process wrote, most likely: the long way tells
    conn = store.connection()
    store.hold_commit_lock()
    store.set_synchronous(conn, full=False)
    return conn.execute(statement, values)
