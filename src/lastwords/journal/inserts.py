"""How rows of entries get into the file: what append/ asks of a store, which is told what became of them.

Rules
-----
* The store's lock is held around every call; the caller that leaves the outermost of them calls ``let_others``.
* A batch is one autocommit statement, so that there is no transaction for an interrupt to leave open. It is synced with
  all before it if it is ``full``; else it is the keeper's to sync.
* A signal handler may raise in the middle of all this, which reaches the application, and may log and fork. Whether
  rows are in is then told by SQLite's count of changes; ``committed`` is called if they are, whatever is raised.
* What SQLite, the file system and the commit lock say against a batch is a :class:`Refused`, and nothing else of theirs
  leaves this module. Damage is noted for the keeper, who repairs it.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, TypeAlias

from ..errors import JournalError
from ..runtime.signals import pass_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .store import Store

Row: TypeAlias = tuple[float, int, str, int]  # created, level, payload, checksum

MAX_ROWS = 240  # in one statement; 4 variables each, SQLite takes 999 (32,766 from 3.32 on)

_VALUES = "(?, ?, ?, ?)"
_INSERT = "INSERT INTO entries (created, level, payload, checksum) VALUES "
INSERT_ONE = _INSERT + _VALUES
_statements: dict[int, str] = {}


class Refused(Exception):  # noqa: N818 - the journal's answer
    """The journal does not take the rows, for the reason that ``str()`` gives: none of them is in."""


def insertion(rows: list[Row]) -> tuple[str, Sequence[object]]:
    """One statement for ``rows``, and its values."""
    count = len(rows)
    if count == 1:
        return INSERT_ONE, rows[0]
    text = _statements.get(count)
    if text is None:
        text = _statements[count] = _INSERT + ", ".join([_VALUES] * count)
    return text, [value for row in rows for value in row]


def _commit_apart(store: Store, statement: str, row: Row) -> None:
    """Commit FULL while there is no connection and none may stay open: during a fork, or an opening (lock held)."""
    lock = store.commit_lock
    was_open, was_held = lock.is_open, lock.held
    conn = store.side_connection(store.lock_timeout / 2)
    try:
        lock.hold()
        conn.execute("PRAGMA synchronous=FULL")
        conn.execute(statement, row)
    finally:
        conn.close()
        if not was_held:
            lock.drop()
        if not was_open:
            lock.close()


class Inserts:
    """Those of one store. Fork-safe through the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._nested = 0  # rows that nested calls committed, or tried to

    def one(self, row: Row, *, full: bool) -> bool:
        """Commit ``row`` the short way, on an open connection; False: :meth:`batch` is to be asked. Raises Refused."""
        store = self._store
        insert = store.snapshot.insert
        if insert is not None and not full:  # alone in the journal: this is all there is to it
            if not store.sqlite_files.seem_ours():  # somebody has closed them: the long way opens them again
                return False
            try:
                insert(INSERT_ONE, row)
            except sqlite3.Error:
                store.snapshot.step_back()  # another process wrote, most likely: the long way tells
                return False
            return True
        conn = store._conn
        if conn is None or conn.in_transaction or not store.sqlite_files.are_ours():
            return False
        try:
            store.queue_up()
            store.set_synchronous(conn, full=full)
            conn.execute(INSERT_ONE, row)
        except (sqlite3.Error, JournalError, OSError) as error:
            if conn is not store._conn:  # a nested fork closed it
                pass_on(error)
                return False
            raise self._refused(error) from error
        if not full and store.commit_lock.owned:
            store.snapshot.committed(conn)
        return True

    def batch(self, rows: list[Row], *, full: bool, committed: Callable[[], None]) -> None:
        """Commit ``rows``. ``committed`` is called once they are in. Raises Refused."""
        done = False
        while not done:
            conn = self._begin()
            before, generation = conn.total_changes - self._nested, self._store.generation
            try:
                self._execute(conn, rows, full=full)
                done = True
            except (sqlite3.Error, OSError) as error:
                if conn is self._store._conn:
                    raise self._refused(error) from error
                pass_on(error)
                # A nested fork closed it. In the child the rows are the parent's, in the parent they are tried again.
                done = self._store.generation != generation
            finally:
                # Also on the way out of an interrupt that Python raised right after the commit.
                if done or (conn is self._store._conn and conn.total_changes - self._nested - before >= len(rows)):
                    committed()

    def batch_within(self, seconds: float, rows: list[Row], *, full: bool, committed: Callable[[], None]) -> None:
        """:meth:`batch`, which waits no longer than that for a locked journal."""
        conn = self._begin()
        try:
            conn.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")
            try:
                self.batch(rows, full=full, committed=committed)
            finally:
                conn.execute(f"PRAGMA busy_timeout={int(self._store.lock_timeout * 500)}")
        except (sqlite3.Error, OSError) as error:
            raise self._refused(error) from error
        finally:
            self._store.commit_lock.drop()

    def nested(self, row: Row) -> bool:
        """Commit ``row``, synced, in a call inside another one of its thread; False: it is to be left to that one."""
        store = self._store
        conn = store._conn
        if not store.sqlite_files.are_ours() or (conn is not None and conn.in_transaction):
            return False
        try:
            if conn is None:
                _commit_apart(store, INSERT_ONE, row)
            else:
                store.queue_up()  # the outer frame lets go of it
                store.set_synchronous(conn, full=True)
                self._nested += 1
                conn.execute(INSERT_ONE, row)
        except (sqlite3.Error, JournalError, OSError) as error:
            pass_on(error)
            return False  # the outer frame tries again, and is told of the trouble if it stays
        return True

    def are_possible(self) -> bool:
        """False without a connection, and inside a transaction."""
        conn = self._store._conn
        return conn is not None and not conn.in_transaction

    def let_others(self) -> None:
        """Let the next process commit."""
        if self._store.commit_lock.held:
            self._store.commit_lock.drop()

    def _begin(self) -> sqlite3.Connection:
        try:
            conn = self._store.connection()
            self._store.queue_up()
        except (sqlite3.Error, JournalError, OSError) as error:
            raise self._refused(error) from error
        return conn

    def _execute(self, conn: sqlite3.Connection, rows: list[Row], *, full: bool) -> None:
        self._store.set_synchronous(conn, full=full)
        conn.execute(*insertion(rows))

    def _refused(self, error: Exception) -> Refused:
        pass_on(error)  # raised by a signal handler: no trouble of the journal's
        self._store.blames_file(error)
        return Refused(str(error))
