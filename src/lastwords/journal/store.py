"""The journal's file as this process holds it: one connection, one lock, opened lazily.

Rules
-----
* Every SQLite call on this connection runs with ``Store.lock`` held, an RLock, because a signal handler or a finalizer
  may log while its own thread is inside. The lock is held across a fork. What works without it has a connection of its
  own, and makes forks wait (``Backfill`` in wal.py, ``Transfer.fetch`` in transfer.py).
* Every write also holds the commit lock, see ``commit_lock``, or the snapshot of a process that writes alone.
* Anything may close the connection between two uses (a fork, a replaced file); ``connection()`` opens it again.
* What SQLite raises leaves this room as a JournalError, its cause with it, see ``explaining``.
* Opening never changes a file that is not ours: it is looked at before, see ``first_look``.

Opening
-------
create 0600, see ``void`` -> look (``first_look``) -> connect -> ``schema`` -> begin an epoch, unless this store has had
the file open before. The whole is retried if other processes were in its way, see ``raced``.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..errors import JournalDamaged, JournalError
from ..runtime import identity
from ..runtime.fork import follow_forks
from ..runtime.lock import AnyLock, new_lock
from ..runtime.stderr import say
from . import continuity, epochs, files, places, raced, renewed_file, schema, unseen_fork, void
from .commit_lock import CommitLock
from .explain import SqliteExplained, reason_of
from .first_look import look_at, never_hanging
from .snapshot import Snapshot
from .sqlite_codes import is_damage, refuse_too_old
from .sqlite_files import OPENING, SqliteFiles, Swapped, abandon, at_high_numbers
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOCK_TIMEOUT = 2.0  # seconds that a caller waits for another process, once


class Store:
    """One journal file. Thread-safe through ``lock``; fork-safe through the process's fork hook.

    ``create``: make the file if it is missing (else :class:`JournalMissing`). ``mode``: its permission bits.
    ``lock_timeout``: seconds to wait for another process. Raises JournalError and its children from the constructor.
    """

    only_reads = False

    def __init__(
        self, path: str, *, create: bool = True, mode: int = 0o600, lock_timeout: float = LOCK_TIMEOUT
    ) -> None:
        self.path = path
        self.mode = mode
        self.lock_timeout = lock_timeout
        self.explaining = SqliteExplained(path, reading=self.only_reads)
        self.lock = new_lock()
        self.identity: files.Identity | None = None
        self.epochs: list[tuple[int, str]] = []
        # Called with the lock held before a connection is given up (fork, close): save what a replaced file would lose.
        self.before_close: Callable[[], None] | None = None
        # Called before the lock is released: commits what a nested call left behind.
        self.before_release: Callable[[], None] | None = None
        self.turns = Turns()
        self._conn: sqlite3.Connection | None = None
        self.sqlite_files = SqliteFiles(path)
        self._told_lost = False
        self.commit_lock = CommitLock(path, lock_timeout / 2)  # the other half is for SQLite's own lock
        self.snapshot = Snapshot(int(lock_timeout * 500))
        self._full: bool | None = None
        self._closed_for_good = False
        self.is_swapping = False  # what the file before had is on its way into this one
        self.generation = 0  # of processes
        self.filling = False  # older entries are on their way to their places: delivery waits
        self.damaged: str | None = None  # why, once SQLite said so; the keeper repairs it
        refuse_too_old(path)
        if not create:
            files.must_exist(path)
        if not self.only_reads:  # a copy, or what is left of a journal, can be read anywhere
            places.check(path)
        follow_forks(self)  # first: a fork in another thread must find the connection, and close it
        with self.lock:
            self.connection(create=create)

    # --- the lock and the connection ---------------------------------------------------------------

    @property
    def fork_lock(self) -> AnyLock:
        """See :class:`lastwords.runtime.fork.Forkable`."""
        return self.lock

    # All three are used as ``with store.lock, store.reading() as conn``: the statement itself takes the lock, and gives
    # it back whatever a signal handler raises. A generator would keep it, as long as somebody keeps the traceback.

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for SELECTs of a few microseconds (lock held)."""
        with self.explaining:
            try:
                yield self.connection()
            finally:
                self._release()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one autocommit statement, with the commit lock (lock held)."""
        with self.explaining:
            try:
                conn = self.connection()
                self.hold_commit_lock()
                yield conn
            finally:
                self._release()

    @contextmanager
    def transaction(self, *, full: bool = False) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE ... COMMIT, for rare, cold work: an interrupt between the two rolls back (lock held)."""
        with self.writing() as conn:
            self.set_synchronous(conn, full=full)
            try:
                conn.execute("BEGIN IMMEDIATE")
                yield conn
                conn.execute("COMMIT")
            finally:
                if conn.in_transaction:  # an error, or KeyboardInterrupt, which Python may raise anywhere
                    conn.execute("ROLLBACK")

    def blames_file(self, error: BaseException) -> bool:
        """True if ``error`` says that the file is damaged. It is noted, and for the keeper to repair."""
        if found := is_damage(error):
            self.damaged = reason_of(error)
        return found

    def _release(self) -> None:
        if self.lock.depth() != 1:
            return  # inside another use, by a signal handler, say: that one is not done with the commit lock
        try:
            if self.before_release is not None:
                self.before_release()
        finally:
            self.commit_lock.drop()

    def connection(self, *, create: bool = True) -> sqlite3.Connection:
        """The open connection, bound to no snapshot; the lock must be held. ``create=False``: the first opening."""
        if self._conn is not None and not self.sqlite_files.are_ours():
            self._restore_files()
        if self.snapshot.is_held:
            self.snapshot.let_go()
        conn = self._conn
        if conn is None:
            conn = self._open(create=create and not self._closed_for_good)
            self._conn = conn
        elif conn.in_transaction and not self.commit_lock.held:
            conn.execute("ROLLBACK")  # left by an interrupt; nothing of it was acknowledged
        return conn

    def see_to_files(self) -> None:
        """Before the process ends: the interpreter closes the connection, and with it what may be somebody else's."""
        with self.lock:
            if self._conn is not None and not self.sqlite_files.are_ours():
                self._restore_files()

    def _restore_files(self) -> None:
        """Somebody has closed SQLite's descriptors."""
        if not self._told_lost:
            self._told_lost = True
            say(f"journal {self.path}: this program has closed descriptors that are not its own; they are opened again")
        if self.sqlite_files.put_back():
            self.snapshot.forget()  # the lock is gone, and others may have written
        else:
            self._abandon()

    def _abandon(self) -> None:
        """Leave the connection behind: it would write to, and close, what is somebody else's."""
        if self._conn is not None:
            abandon(self._conn, self.snapshot.leave_behind())
            self._conn = None
            self.sqlite_files.give_up()

    def side_connection(self, timeout: float = 0.0) -> sqlite3.Connection:
        """Another connection to the same file; closed by the caller, and before any fork."""
        with OPENING:  # so that its descriptors are not taken for those of a connection that is opened now
            conn = self._new_connection(timeout)
            try:
                conn.execute("PRAGMA wal_autocheckpoint=0")
                conn.execute("PRAGMA schema_version").fetchone()
                schema.sync_for_real(conn)
                self._same_file(self.identity)
            except BaseException:
                conn.close()
                raise
        return conn

    @property
    def is_open(self) -> bool:
        """True while there is a connection; a look without the lock."""
        return self._conn is not None

    def is_replaced(self, *, closely: bool = False) -> bool:
        """True if the files at the path are not those that the open connection has, or were cut.

        A few stats and no lock, but if one of them gives reason to look into the files, or ``closely`` is asked for.
        """
        if self._conn is None or self.identity is None or (not closely and self.sqlite_files.are_at_path()):
            return False
        if files.identify(self.path) != self.identity:
            return True
        with self.lock:
            return self.is_open and not self.sqlite_files.are_whole()

    def close(self) -> None:
        """Give the connection up. A later use opens it again, but does not make a missing file anew."""
        with self.lock:
            newest = continuity.at_end(self)
            try:
                self._close()
            finally:
                self._closed_for_good = True  # last: a rescue may have to make the file anew
            continuity.note_at_rest(self.path, newest)

    def reopen(self) -> None:
        """After :meth:`close`: as a store that was never closed. Opens nothing yet."""
        self._closed_for_good = False

    def give_up(self) -> None:
        """Drop the connection without a last look (lock held)."""
        self.snapshot.forget()
        conn, self._conn = self._conn, None
        self._close()
        if conn is not None:
            with suppress(sqlite3.Error):
                self._close_connection(conn)

    def begin_anew(self) -> None:
        """The damaged file is set aside: open the new one (lock held)."""
        self.damaged = None
        self.connection()

    def swap_out(self) -> Swapped:
        """Hand over the connection of a file that is no longer the journal (lock held, open)."""
        self.snapshot.forget()
        assert self._conn is not None
        old = Swapped(self._conn, self.epochs, self.identity, self.sqlite_files)
        self.sqlite_files = SqliteFiles(self.path)
        self._conn = None
        self._close()
        self.is_swapping = True
        return old

    def swap_back(self, old: Swapped) -> None:
        """Undo :meth:`swap_out` (lock held)."""
        self.give_up()
        self._conn, self.epochs, self.identity, self.sqlite_files = old
        self._full = None

    def _close(self) -> None:
        self.see_to_files()
        try:
            if self._conn is not None and self.before_close is not None:
                self.before_close()
        finally:  # a fork must find nothing open
            self.snapshot.forget()
            conn, self._conn = self._conn, None
            if conn is not None:
                self._close_connection(conn)
            self.commit_lock.close()

    def _close_connection(self, conn: sqlite3.Connection) -> None:
        if self.sqlite_files.are_ours() or self.sqlite_files.put_back():
            self.sqlite_files.forget()
            conn.close()
        else:
            abandon(conn)
            self.sqlite_files.give_up()

    def before_fork(self) -> None:
        """See :class:`lastwords.runtime.fork.Forkable`."""
        self._close()

    def after_fork_in_parent(self) -> None:
        """See :class:`lastwords.runtime.fork.Forkable`."""

    def after_unseen_fork(self) -> None:
        """The parent's connection is neither used nor closed, and the library is tried before it is trusted."""
        self._abandon()
        self.commit_lock.close()
        unseen_fork.doubt()

    def after_fork_in_child(self) -> None:
        """The child opens its own connection when it first needs one."""
        self._full = None
        self.generation += 1

    # --- the commit lock ----------------------------------------------------------------------------

    def hold_commit_lock(self) -> None:
        """Queue up behind other processes' commits (lock held). Reentrant; released by the outer frame."""
        self.snapshot.let_go()
        self.commit_lock.hold()

    def queue_up(self) -> None:
        """The same for a commit. One into a file removed with its lock goes on: what is there will be moved."""
        with suppress(FileNotFoundError):
            self.hold_commit_lock()

    def set_synchronous(self, conn: sqlite3.Connection, *, full: bool) -> None:
        """FULL: the next commit is on the medium, with all before it, when it returns. NORMAL: the keeper's work."""
        if self._full is not full:
            conn.execute("PRAGMA synchronous=FULL" if full else "PRAGMA synchronous=NORMAL")
            self._full = full

    # --- opening --------------------------------------------------------------------------------------

    def _open(self, *, create: bool) -> sqlite3.Connection:
        flocked = self.commit_lock.held
        try:
            with self.explaining:
                if identity.is_strict():
                    return never_hanging(self.path, lambda: self._open_steady(create=create))
                return self._open_steady(create=create)
        except FileNotFoundError:
            raise  # removed while it was opened: for the process that has had it open
        except OSError as error:
            raise places.refusal(self.path, error) from error
        except UnicodeDecodeError as error:  # sqlite3 quotes a damaged schema in a message that is no UTF-8
            raise JournalDamaged(self.path, "is damaged: malformed schema", "see `lastwords doctor`") from error
        finally:
            if not flocked:
                self.commit_lock.drop()

    def _open_steady(self, *, create: bool) -> sqlite3.Connection:
        return raced.until_steady(self.path, lambda: self._open_once(create=create), self.lock_timeout)

    def _open_once(self, *, create: bool) -> sqlite3.Connection:
        unseen_fork.refuse_if_it_hangs(self.path, self.lock_timeout)
        if void.is_void(self.path):
            files.check_beside(self.path)
            void.refuse_to_lose(self.path, self.mode, create=create)
            if not create:
                raise files.missing(self.path)
            void.make(self.path, self.mode, self.hold_commit_lock)
        try:
            self.sqlite_files.refuse_if_lost()
        except JournalError:
            if not renewed_file.renew(self):
                raise
        identity = files.identify(self.path)
        files.check_beside(self.path)
        look_at(self.path)
        with at_high_numbers() as before:
            conn = self._connect(identity)
            self.sqlite_files.find(before)
        return conn

    def _connect(self, identity: files.Identity | None) -> sqlite3.Connection:
        conn = self._new_connection(self.lock_timeout / 2)  # the other half is for the commit lock
        try:
            identity = self._same_file(identity)
            # Set explicitly: builds differ. FULL while the schema is made; each commit chooses for itself.
            self._full = None
            self.set_synchronous(conn, full=True)
            schema.prepare(conn, self.path, self.hold_commit_lock, lambda: epochs.begin(conn, identity))
            self.set_synchronous(conn, full=False)
            self.identity = self._same_file(identity)
            continuity.go_on(self, conn, identity)
            files.check_beside(self.path)
        except BaseException:
            conn.close()
            raise
        return conn

    def _new_connection(self, timeout: float, mode: str = "mode=rw") -> sqlite3.Connection:
        """``mode=rw``: if the file was removed meanwhile, it must not be made over its own -wal."""
        uri = files.uri(self.path, mode)
        return sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)

    def _same_file(self, identity: files.Identity | None) -> files.Identity:
        if identity is None or files.identify(self.path) != identity:
            raise raced.Replaced(self.path)
        return identity

    def read_epochs(self, conn: sqlite3.Connection) -> list[tuple[int, str]]:
        """The epochs; they are read again if another process has begun one since (lock held)."""
        self.epochs = epochs.read(conn, self.epochs)
        return self.epochs
