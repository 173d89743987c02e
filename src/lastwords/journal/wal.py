"""The ``-wal`` file: how full it is, getting it onto the medium, and emptying it.

Theory of operation
-------------------
Commits append frames (a page each, with a header) to the WAL; a checkpoint moves them into the database. The WAL can
be emptied only then. Cutting it to nothing (TRUNCATE) gives the space back, but makes the file system allocate every
page of it anew: 4 to 6 us for each commit, in the caller. So under load it is begun again from its first frame
(RESTART), over the old frames, and only cut once the load has ended.

The size of the file then says nothing about how many frames count. A frame does if it carries the salts of the WAL's
header, which are new at each restart (https://sqlite.org/fileformat2.html#the_write_ahead_log), and those frames are
the first ones of the file: so their number is found by halving, in a dozen reads of 8 bytes.

A checkpoint that empties the WAL shuts writers out. So nearly all of its work is done before, beside them: a PASSIVE
one on a connection of its own moves what there is; the one that empties then finds a few frames. SQLite before 3.51.3
has the WAL-reset bug (a commit that resets the WAL while a checkpoint begins): nobody can reset a WAL on which a
reader has a lock, so a second connection, the guard, reads for as long as that takes.

A checkpoint does not sync when a reader is idle (PASSIVE and TRUNCATE did 0 fdatasync for 111 unsynced frames), so the
WAL is synced by a descriptor of our own; SQLite's locks are not on that file.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING

from ..runtime.fork import ForksWait, unshared_fds
from ..runtime.native import sleep
from ..runtime.signals import pass_on
from . import files, meta
from .sqlite_codes import wal_reset_is_safe
from .wal_check import FRAME_HEADER, HEADER

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from .store import Store

SUFFIX = "-wal"
PAUSE_SECONDS = 0.0005  # between two slices of a look
MOST_SLICES = 40


def file_size(store: Store) -> int:
    """Bytes of the ``-wal`` file."""
    try:
        return os.stat(store.path + SUFFIX).st_size
    except OSError:
        return 0


@contextmanager
def _opened(store: Store) -> Iterator[int]:
    """A descriptor of our own, which a forked child does not keep. Raises OSError."""
    with unshared_fds() as fds:
        number = os.open(store.path + SUFFIX, files.READ)
        fds.add(number)
    try:
        yield number
    finally:
        with unshared_fds() as fds:
            fds.close(number)  # if it is still ours: that took its time


def fill(store: Store) -> int:
    """Bytes of the frames since the WAL was last begun anew. A commit under way may count or not."""
    try:
        with _opened(store) as fd:
            return _fill(fd)
    except OSError as error:  # mostly: nothing was committed since it was closed
        pass_on(error)
        return 0


def _fill(fd: int) -> int:
    header = os.pread(fd, HEADER, 0)
    frame = FRAME_HEADER + int.from_bytes(header[8:12], "big")
    salts = header[16:24]
    low, high = 0, max(0, os.fstat(fd).st_size - HEADER) // frame
    while low < high:  # the first `low` frames count, those from `high` on do not
        middle = (low + high) // 2
        if os.pread(fd, 8, HEADER + middle * frame + 8) == salts:
            low = middle + 1
        else:
            high = middle
    return low * frame


def sync(store: Store) -> None:
    """All that was committed reaches the medium. Raises OSError."""
    with suppress(FileNotFoundError), _opened(store) as fd:  # else checkpointed and closed meanwhile, which synced
        files.sync_descriptor(fd)


def look_ahead(store: Store) -> None:
    """Most of what is to be looked at closely, beside commits: a second's frames would keep callers waiting for 6 ms.

    Through a descriptor of our own. What it finds, the closer look finds again.
    """
    try:
        with _opened(store) as fd:
            _look_ahead(store, fd)
    except OSError as error:  # not there, or closed by somebody
        pass_on(error)


def _look_ahead(store: Store, wal: int) -> None:
    part = None
    for _ in range(MOST_SLICES):
        with store.lock:
            part = store.sqlite_files.part(wal, part) if store.is_open else None
        if part is None or not part.is_sound(wal):
            return
        sleep(PAUSE_SECONDS)  # callers want the interpreter, too


class Backfill:
    """Moves frames into the database beside commits. Fork-safe: a fork waits for its connections to be closed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._forks = ForksWait()

    def run(self) -> None:
        """Move what was committed before this call, as far as readers let it. Raises JournalError."""
        look_ahead(self._store)
        with self._store.explaining, ExitStack() as held:
            with self._store.lock, self._store.writing() as conn:
                if not self._store.sqlite_files.are_whole():
                    return  # what is moved would be zeros; the keeper sees to it
                # Inside the store's lock: whoever holds this one must not wait for that.
                held.enter_context(self._forks.fork_lock)
                guard = held.enter_context(closing(self._store.side_connection()))
                self._store.set_synchronous(conn, full=False)
                _note_time(conn)
                # The frame of that commit cannot be in the database yet, so the guard's mark is not 0.
                held.enter_context(closing(guard.execute("SELECT 1 FROM sqlite_master")))
            worker = held.enter_context(closing(self._store.side_connection()))
            worker.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            # SQLite leaves that to the checkpoint that moves the last frame, for which callers wait.
            self._store.sqlite_files.sync()


def checkpoint(store: Store, *, shrink: bool) -> bool:
    """Move the WAL into the database and begin it anew; False if a reader was in the way.

    ``shrink``: cut the file, too. Under the commit lock: SQLite before 3.51.3 has the WAL-reset bug, and these modes
    silently become PASSIVE when a writer is busy. The frames are synced before it is taken, which is most of the work.
    """
    sync(store)
    with store.lock, store.writing() as conn:
        if not (store.commit_lock.owned or wal_reset_is_safe()):
            return False  # the lock was not waited for: another process may be committing
        if not store.sqlite_files.are_whole():
            return False
        store.set_synchronous(conn, full=False)
        store.commit_lock.mark_checkpointing(running=True)
        # It would wait for readers with the busy timeout, and every caller with it: next time, then.
        conn.execute("PRAGMA busy_timeout=10")
        try:
            return _checkpoint(conn, "TRUNCATE" if shrink else "RESTART")
        finally:
            conn.execute(f"PRAGMA busy_timeout={int(store.lock_timeout * 500)}")
            store.commit_lock.mark_checkpointing(running=False)


def _checkpoint(conn: sqlite3.Connection, mode: str) -> bool:
    busy: int = conn.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0]
    if not busy:
        # The first commit after it begins the file anew, and syncs: so it is made here and not by a caller.
        _note_time(conn)
    return busy == 0


def _note_time(conn: sqlite3.Connection) -> None:
    meta.put(conn, "checkpointed_at", str(time.time()))
