"""Append: a record is in the journal when the call that logged it returns.

Theory of operation
-------------------
A caller that finds nobody inside takes the store's lock and commits its row. One that does puts a ticket on
``_arrived`` and takes the store's lock. Whoever gets it first is the leader: it writes
all tickets that have queued up in ONE autocommit INSERT and marks them done. A follower gets the lock afterwards, sees
its ticket done and returns; one whose leader died of an exception finds its ticket undone and leads in turn. There is
nothing to time out and no transaction for an interrupt to leave open.

Durability. The statement commits with ``synchronous=FULL`` if any of its records is at or above ``sync_level``: SQLite
then syncs the whole WAL, so nothing logged before such a record is lost either. Otherwise the keeper syncs within
``sync_interval``.

Nesting. A signal handler or a ``__del__`` may log while its own thread is inside. It finds the lock its own and
commits at once if the connection is between two statements, FULL for simplicity; inside a transaction its ticket is
left for the outer frame, which commits it before it lets go of the lock.

Trouble. If the journal cannot take a batch (disk full, locked, read-only, damaged) its records and all later ones go
to a bounded memory buffer, the least severe and oldest dropped first when it is full, until the keeper gets them
committed, oldest first. While that lasts no caller waits for the journal: the first one has waited for all.

What a crash leaves behind: a batch is one statement, so all of it or nothing; a record in the memory buffer is lost
with the process, which stats().buffered and one line on stderr say while it lasts.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from . import process
from .errors import JournalError
from .store import is_damage

if TYPE_CHECKING:
    from collections.abc import Callable

    from .store import Store

Row: TypeAlias = tuple[float, int, str, int]  # created, level, payload, checksum

MAX_BATCH = 500  # rows in one statement; 4 variables each, SQLite takes 32,766
ROW_OVERHEAD = 150  # bytes of Python objects around a buffered payload


class _Ticket:
    __slots__ = ("done", "row")

    def __init__(self, row: Row) -> None:
        self.row = row
        self.done = False


_VALUES = "(?, ?, ?, ?)"
_INSERT = "INSERT INTO entries (created, level, payload, checksum) VALUES "
_INSERT_ONE = _INSERT + _VALUES
_statements: dict[int, str] = {}


def _insert_statement(rows: int) -> str:
    text = _statements.get(rows)
    if text is None:
        text = _statements[rows] = _INSERT + ", ".join([_VALUES] * rows)
    return text


class MemoryBuffer:
    """Records that wait for the journal, at most ``limit`` bytes. Not thread-safe: its owner's lock is held."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.count = 0
        self.dropped: dict[int, int] = {}  # level: how many
        self._levels: dict[int, deque[tuple[int, Row]]] = {}
        self._order = 0

    def add(self, row: Row) -> None:
        """Keep ``row``; drop the least severe, oldest ones if it is too much."""
        self._order += 1
        self._levels.setdefault(row[1], deque()).append((self._order, row))
        self.count += 1
        self.bytes += len(row[2]) + ROW_OVERHEAD
        while self.bytes > self.limit:
            level = min(self._levels)
            self._forget(level)
            self.dropped[level] = self.dropped.get(level, 0) + 1

    def oldest(self, most: int) -> list[Row]:
        """Up to ``most`` rows in the order they came; they stay until :meth:`remove`."""
        heads: list[tuple[int, Row]] = []
        for rows in self._levels.values():
            heads.extend(rows[i] for i in range(min(most, len(rows))))
        heads.sort(key=lambda item: item[0])
        return [row for _, row in heads[:most]]

    def remove(self, rows: list[Row]) -> None:
        """Forget rows that :meth:`oldest` gave."""
        for row in rows:
            waiting = self._levels.get(row[1])
            if waiting and waiting[0][1] is row:  # else it was dropped meanwhile to make room
                self._forget(row[1])

    def _forget(self, level: int) -> None:
        rows = self._levels[level]
        _, row = rows.popleft()
        if not rows:
            del self._levels[level]
        self.count -= 1
        self.bytes -= len(row[2]) + ROW_OVERHEAD

    def take_dropped(self) -> dict[int, int]:
        """What was dropped since the last call, by level."""
        dropped, self.dropped = self.dropped, {}
        return dropped


class Committer:
    """Commits rows to ``store``. Thread-safe; safe in signal handlers and finalizers; fork-safe.

    ``sync_level``: level number from which a commit is synced. ``memory_limit``: bytes of the memory buffer.
    ``on_dirty``: called after a commit that was not synced, when none had been pending. ``on_trouble``: called when
    the memory buffer begins to fill. Both must be quick and must not take locks.
    """

    def __init__(
        self,
        store: Store,
        *,
        sync_level: int,
        memory_limit: int,
        on_dirty: Callable[[], None],
        on_trouble: Callable[[], None],
    ) -> None:
        self._store = store
        self._sync_level = sync_level
        self._on_dirty = on_dirty
        self._on_trouble = on_trouble
        self._arrived: deque[_Ticket] = deque()
        self._inside = False  # a caller is committing; a hint, the lock decides
        self._memory_lock = threading.RLock()
        self._memory = MemoryBuffer(memory_limit)
        self.trouble: str | None = None  # why records go to memory, or None
        self._retry_rows = MAX_BATCH
        self.dirty = False  # something was committed and not synced
        self.committed = 0  # rows this process committed
        store.before_release = self._commit_left_behind

    @property
    def buffered(self) -> int:
        """How many records are only in memory."""
        return self._memory.count

    @property
    def overflowed(self) -> int:
        """How many records the full memory buffer dropped and no journal has counted yet."""
        return sum(self._memory.dropped.values())

    def sync_all(self) -> None:
        """From now on every commit is synced: the keeper is gone."""
        self._sync_level = -(2**63)

    def append(self, row: Row) -> None:
        """Commit ``row``, or keep it in memory if the journal is in trouble. Never raises for a journal's sake."""
        if self.trouble is not None and self._keep_in_memory(row):
            return
        store = self._store
        if self._inside or store.lock._is_owned():  # type: ignore[attr-defined]
            self._append_queued(row)
            return
        # Nobody is inside: commit without a ticket. Whoever comes meanwhile sees _inside and queues up.
        with store.lock:
            self._inside = True
            try:
                insert = store.snapshot.insert
                if insert is not None and row[1] < self._sync_level and not self._arrived:
                    # Alone in the journal, too: this is all there is to it.
                    insert(_INSERT_ONE, row)
                    self.committed += 1
                    if self.dirty:
                        return
                    self._committed(0, full=False)
                elif not self._append_alone(store, row):
                    self._append_queued(row, leading=True)
            except sqlite3.Error:
                store.snapshot.step_back()  # another process wrote, most likely: the long way tells
                self._append_queued(row, leading=True)
            finally:
                self._inside = False
                if store.commit_lock.held:
                    store.drop_commit_lock()

    def _append_alone(self, store: Store, row: Row) -> bool:
        """The short way, on an open connection with nobody waiting; False: take the long one."""
        conn = store._conn
        if conn is None or self._arrived or self.trouble is not None or conn.in_transaction:
            return False
        full = row[1] >= self._sync_level
        try:
            store.hold_commit_lock()
            store.set_synchronous(conn, full=full)
            conn.execute(_INSERT_ONE, row)
        except (sqlite3.Error, JournalError, OSError) as error:
            if conn is store._conn:  # else a nested fork closed it
                self._enter_trouble(error)
            return False
        self._committed(1, full=full)
        if not full:
            store.snapshot.committed(conn)
        return True

    def _append_queued(self, row: Row, *, leading: bool = False) -> None:
        ticket = _Ticket(row)
        self._arrived.append(ticket)
        store = self._store
        if not leading and store.lock._is_owned():  # type: ignore[attr-defined]
            self._append_nested(ticket)
            return
        with store.lock:
            self._inside = True
            try:
                while not ticket.done:
                    self._lead()
            finally:
                self._inside = False
                store.drop_commit_lock()

    # --- leader ---------------------------------------------------------------------------------------

    def _waiting(self) -> list[_Ticket]:
        """Undone tickets, oldest first; done ones at the front are let go."""
        arrived = self._arrived
        while arrived and arrived[0].done:
            arrived.popleft()
        while True:
            try:
                tickets = list(arrived)
            except RuntimeError:  # a finalizer, run by the garbage collector inside list(), logged
                continue
            return [t for t in tickets[:MAX_BATCH] if not t.done]

    def _lead(self) -> None:
        batch = self._waiting()
        if self.trouble is not None or not self._commit([ticket.row for ticket in batch], batch):
            with self._memory_lock:
                for ticket in batch:
                    if not ticket.done:
                        self._memory.add(ticket.row)
                        ticket.done = True
        arrived = self._arrived
        while arrived and arrived[0].done:
            arrived.popleft()

    def _commit(self, rows: list[Row], batch: list[_Ticket]) -> bool:
        """True if ``rows`` are in the journal (their tickets are done), False if the journal cannot take them."""
        try:
            conn = self._store.connection()
            self._store.hold_commit_lock()
        except (sqlite3.Error, JournalError, OSError) as error:
            self._enter_trouble(error)
            return False
        before = conn.total_changes
        try:
            self._insert(conn, rows)
        except (sqlite3.Error, OSError) as error:
            if conn is not self._store._conn:
                return False if self.trouble else self._commit(rows, batch)  # a nested fork closed it: once more
            self._enter_trouble(error)
            return False
        finally:
            # Also on the way out of an interrupt that Python raised right after the commit.
            if conn is self._store._conn and conn.total_changes - before >= len(rows):
                for ticket in batch:
                    ticket.done = True
        return True

    def _insert(self, conn: sqlite3.Connection, rows: list[Row]) -> None:
        if len(rows) == 1:
            full = rows[0][1] >= self._sync_level
            self._store.set_synchronous(conn, full=full)
            conn.execute(_INSERT_ONE, rows[0])
        else:
            full = max(row[1] for row in rows) >= self._sync_level
            self._store.set_synchronous(conn, full=full)
            conn.execute(_insert_statement(len(rows)), [value for row in rows for value in row])
        self._committed(len(rows), full=full)

    def _committed(self, rows: int, *, full: bool) -> None:
        self.committed += rows
        if full:
            self.dirty = False
        elif not self.dirty:
            self.dirty = True
            self._on_dirty()

    # --- nested calls -----------------------------------------------------------------------------------

    def _append_nested(self, ticket: _Ticket) -> None:
        conn = self._store._conn
        if conn is None or conn.in_transaction or self.trouble is not None:
            return  # the outer frame commits it before it lets go of the lock
        try:
            self._store.hold_commit_lock()  # the outer frame lets go of it
            self._store.set_synchronous(conn, full=True)
            conn.execute(_INSERT_ONE, ticket.row)
        except (sqlite3.Error, JournalError, OSError):
            return  # the outer frame tries again, and tells of the trouble if it stays
        ticket.done = True
        self.committed += 1

    def _commit_left_behind(self) -> None:
        """Before the lock is let go: what nested calls left on the line."""
        if self._arrived and self._store._conn is not None and not self._store._conn.in_transaction:
            while self._waiting():
                self._lead()

    # --- trouble ------------------------------------------------------------------------------------------

    def _keep_in_memory(self, row: Row) -> bool:
        with self._memory_lock:
            if self.trouble is None:
                return False
            self._memory.add(row)
            return True

    def _enter_trouble(self, error: Exception) -> None:
        if is_damage(error):
            self._store.damaged = str(error)
        if self.trouble is None:
            self.trouble = str(error)
            process.say(
                f"journal {self._store.path} takes no records ({error}); they wait in memory, up to"
                f" {self._memory.limit / 2**20:.0f} MiB, and die with this process until it does"
            )
        self._on_trouble()

    def retry(self, *, patience: float = 0.05) -> bool:
        """Commit what waits in memory (the keeper's work, and the exit's); True when nothing is left there.

        ``patience``: seconds to wait for a locked journal; callers that arrive meanwhile go to memory at once.
        """
        if self.trouble is None:
            return True
        before = self._memory.count
        while True:
            # The store's lock too: the leader that found the trouble holds it until its records are in memory.
            with self._store.lock, self._memory_lock:
                rows = self._memory.oldest(self._retry_rows)
                if not rows:
                    self.trouble = None
                    lost = self.overflowed
                    break
            if not self._retry_batch(rows, patience):
                self._retry_rows = max(1, self._retry_rows // 8)  # on a nearly full disk a few may fit
                return False
            self._retry_rows = min(MAX_BATCH, self._retry_rows * 2)
        process.say(
            f"journal {self._store.path} takes records again; {before:,} waited in memory"
            + (f", {lost:,} did not fit and are lost" if lost else ", none is lost")
        )
        return True

    def _retry_batch(self, rows: list[Row], patience: float) -> bool:
        with self._store.lock:
            try:
                conn = self._store.connection()
                conn.execute(f"PRAGMA busy_timeout={int(patience * 1000)}")
                try:
                    self._store.hold_commit_lock()
                    self._insert(conn, rows)
                finally:
                    conn.execute(f"PRAGMA busy_timeout={int(self._store.lock_timeout * 500)}")
            except (sqlite3.Error, JournalError, OSError) as error:
                self.trouble = str(error)
                if is_damage(error):
                    self._store.damaged = str(error)
                return False
            finally:
                self._store.drop_commit_lock()
            with self._memory_lock:
                self._memory.remove(rows)
        return True

    def take_overflow(self) -> dict[int, int]:
        """What the memory buffer dropped, by level, for the journal to count; the caller counts it or gives it back."""
        with self._memory_lock:
            return self._memory.take_dropped()

    def give_back_overflow(self, drops: dict[int, int]) -> None:
        """Undo :meth:`take_overflow`: the journal could not count them."""
        with self._memory_lock:
            for level, count in drops.items():
                self._memory.dropped[level] = self._memory.dropped.get(level, 0) + count

    def after_fork_in_child(self) -> None:
        """The parent's callers and buffered records are the parent's."""
        self._arrived.clear()
        self._inside = False
        self._memory_lock = threading.RLock()
        self._memory = MemoryBuffer(self._memory.limit)
        self.trouble = None
        self.dirty = False
