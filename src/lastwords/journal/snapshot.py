"""The snapshot: a process that writes alone keeps its read lock between two commits.

Theory of operation
-------------------
In WAL mode an autocommit INSERT is a read transaction that becomes a write transaction and ends again: six fcntl calls
for SQLite's locks and two of flock for ours, around two writes. If a SELECT is left open on the same connection, the
read transaction stays, each commit moves it along, and four of the six fcntl and both flock calls are saved: a third
of the cost of a commit, measured.

Rules
-----
* Only commits that are not synced go through it, so ``synchronous`` is NORMAL as long as it is held.
* It is taken under the commit lock, right after a commit, by a connection that has committed ``TAKE_AFTER`` times in a
  row; it is let go whenever the connection is used for anything but the next such commit, or what ``alone`` names: then
  one that reads sees what others wrote, and one that checkpoints may.
* The holder commits without the commit lock. What that lock is for is still so: a commit and a checkpoint of another
  connection cannot meet in the WAL-reset bug, because nobody can reset a WAL on which a reader has a lock, and the
  reader's mark is not 0, because its own frame has not been moved into the database when the snapshot is taken.
* Another process that commits meanwhile makes the next commit fail with SQLITE_BUSY_SNAPSHOT at once, nothing written:
  the holder steps back to the commit lock, and stays there for ``REST`` commits. So processes that share a journal
  queue up as ever.
* A reader's lock keeps others from emptying the WAL, so it must not be held for long by one who does nothing: it is
  only taken after a commit that the keeper is to sync, and the keeper lets it go when it finds that no more came.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TAKE_AFTER = 4  # commits: taking and letting go cost as much as two commits save
REST = 5_000  # commits, after another process committed: about a second at full speed


class Snapshot:
    """What one store holds. The store's lock is held around every call. ``busy_ms``: the connection's busy timeout."""

    __slots__ = ("_busy_ms", "_held", "_run", "insert")

    def __init__(self, busy_ms: int) -> None:
        # While it is held: how to commit one row.
        self.insert: Callable[[str, tuple[float, int, str, int]], object] | None = None
        self._held: sqlite3.Cursor | None = None
        self._busy_ms = busy_ms
        self._run = 0  # commits in a row; below 0: to be rested

    def committed(self, conn: sqlite3.Connection) -> None:
        """``conn`` has committed one row, and the commit lock is still held: take the snapshot if it pays."""
        self._run += 1
        if self._run < TAKE_AFTER:
            return
        with suppress(sqlite3.Error):  # no snapshot, then
            insert = conn.cursor().execute
            self._held = conn.execute("SELECT 1 FROM sqlite_master")  # has many rows, so this one is left open
            # Whoever finds the journal busy from here on goes to the commit lock and queues up there.
            conn.execute("PRAGMA busy_timeout=0")
            if self._held is not None:
                self.insert = insert
            else:  # a finalizer or a signal handler has logged in between, and let it go
                self._restore(conn)

    def let_go(self) -> None:
        """End the read transaction, if there is one. Idempotent, so that an interrupt may cut it short anywhere."""
        self.insert = None
        held = self._held
        if held is not None:
            self._run = min(self._run, 0)
            self._restore(held.connection)
            held.close()
            self._held = None

    def _restore(self, conn: sqlite3.Connection) -> None:
        conn.execute(f"PRAGMA busy_timeout={self._busy_ms}")

    def step_back(self) -> None:
        """A commit failed: another process writes, too, most likely. Never raises."""
        self.forget()
        self._run = -REST

    def forget(self) -> None:
        """Let go, whatever the connection's state: it may be closed already."""
        with suppress(sqlite3.Error):
            self.let_go()
        self._held = None

    def leave_behind(self) -> object:
        """What must never be closed, because the connection must not."""
        held, self._held, self.insert = self._held, None, None
        return held

    @property
    def is_held(self) -> bool:
        """True while the read transaction is open."""
        return self._held is not None
