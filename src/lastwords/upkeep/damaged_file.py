"""A damaged journal is set aside, and what can be read of it goes into a new one, with its ids.

Rules
-----
* Only a handler does this, never a command that looks. And only to a file that has been a journal: a ``.commit`` file
  lies beside it. Whatever else is at the path (a mistyped path!) is refused and left alone.
* Nothing is deleted, see ``journal/set_aside``; and whoever is killed at any point leaves a marker, with which the next
  handler, or one that has the journal open, goes on where it was.
* Rows are read around damaged pages, see ``transfer``. What was settled, as far as the cursor can be read, is not
  delivered again; if it cannot, everything readable is pending: at least once.
* Each row carries a checksum, so a row that reads but was changed becomes a dead letter later, with the reason.

``meta`` of the new journal says ``damaged_at``, ``damaged_file``, ``salvaged`` and ``unreadable``: seqs that are known
to have existed, by later ones or by what ``journal/continuity`` noted, and could not be read.

A process that had the file open goes on committing to it until it notices, as with a removed one, and then moves that
itself. If it is killed before, that is found by a second look a minute later, or at the next start.
"""

from __future__ import annotations

import os
import sqlite3
import time
from bisect import bisect_right
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import JournalBusy, JournalDenied, JournalError, JournalMissing
from ..journal import continuity, files, meta, set_aside
from ..journal.commit_lock import SUFFIX as COMMIT_SUFFIX
from ..journal.commit_lock import CommitLock
from ..journal.raw_rows import RawRows
from ..journal.sqlite_codes import text_of
from ..journal.store import Store
from ..journal.transfer import AIM_SECONDS, Transfer, count, read_all, whole
from ..runtime.stderr import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..errors import JournalDamaged

SMALLEST = 512  # bytes that a page has at least
LOCK_SECONDS = 1.0  # to wait for the commit lock: its holder may be stopped, and callers wait for us


def was_a_journal(path: str) -> bool:
    """True if there is reason to believe that the file at ``path`` was made by us."""
    return os.path.exists(path + COMMIT_SUFFIX)


def is_ours(path: str) -> bool:
    """Whether a damaged file may be set aside: it was a journal, or it is empty, which is nobody's data."""
    return was_a_journal(path) or os.path.getsize(path) == 0


# --- setting aside ------------------------------------------------------------------------------------


def finish_setting_aside(path: str) -> None:
    """Before the journal is opened: do the renames that a killed process left. Raises OSError and JournalBusy."""
    if set_aside.unfinished(path):
        with _commit_lock(path):
            set_aside.finish(path)


def open_repaired(path: str, mode: int, error: JournalDamaged) -> Store:
    """Set the damaged journal at ``path`` aside and make a new one; ``error`` if it is not ours."""
    if not is_ours(path):
        raise error
    set_aside_file(path, files.identify(path), error.problem, is_damaged=True)
    return Store(path, mode=mode)


def repair_open(store: Store) -> None:
    """The keeper's: the file under an open connection turned out damaged. Raises what opening the new one raises."""
    reason, identity, epochs = store.damaged, store.identity, store.epochs
    with store.lock:
        if reason is None:
            return
        store.give_up()
        set_aside_file(store.path, identity, reason, epochs, is_damaged=True)
        store.damaged = None
        store.connection()


def set_aside_file(
    path: str,
    identity: files.Identity | None,
    reason: str,
    epochs: Sequence[tuple[int, str]] = (),
    *,
    is_damaged: bool = False,
) -> None:
    """Rename it and its side files, if it is still the one. ``is_damaged``: what it should have is not elsewhere."""
    with _commit_lock(path) as lock:
        if identity is None or files.identify(path) != identity:  # another process has done it meanwhile
            return
        marker = set_aside.Marker(identity.inode, reason, tuple(epochs))
        noted = continuity.read(lock.descriptor()) if is_damaged and lock is not None else None
        if noted is not None:
            marker = marker._replace(journal=noted.journal, newest=noted.newest)
        set_aside.begin(path, marker)


@contextmanager
def _commit_lock(path: str) -> Iterator[CommitLock | None]:
    if not was_a_journal(path):  # somebody removed the lock file
        yield None
        return
    lock = CommitLock(path, LOCK_SECONDS)
    try:
        lock.hold()
        if not lock.owned:  # its holder is stopped: what a commit may do without it, a rename may not
            raise JournalBusy(path, "another process holds its commit lock", "see `ps` for state T")
        yield lock
    finally:
        lock.close()


# --- salvage ------------------------------------------------------------------------------------------


class Salvage(Transfer):
    """From a file that was set aside."""

    counts_gaps = True

    def __init__(self, conn: sqlite3.Connection, name: str, marker: set_aside.Marker, into: sqlite3.Connection) -> None:
        self._raw: RawRows | None = None  # while they are looked for
        self._counted = 0  # up to this seq, what is not there was counted before they were looked for
        self._total = 0, 0  # salvaged, and unreadable
        self._gaps: list[tuple[int, int]] = []  # what is looked for in them, if it is not all
        self._reason = marker.reason
        super().__init__(conn, name, into, marker.epochs)
        names = read_all(conn, "SELECT value FROM meta WHERE key = 'journal'")
        self._should_end = marker.newest if names == [(marker.journal,)] else 0
        self.is_broken |= max(self.newest, self.noted_at(into)) < self._should_end

    def size(self) -> int:
        """See :meth:`Transfer.size`. The file may name any number of pages, too."""
        there = sum(os.path.getsize(file) for file in (self.name, self.name + "-wal") if os.path.exists(file))
        return min(super().size() or there, there)

    @property
    def left(self) -> int:
        """See :meth:`Transfer.left`."""
        return 1 if self._raw is not None else super().left

    def step(self, store: Store) -> bool:
        """First what SQLite reads. If that is not all, what can be found in the pages, whatever leads to them."""
        if self._raw is not None:
            if not self._raw.find(AIM_SECONDS):
                self._turn_to(self._raw, store.connection())
            return True
        if super().step(store):
            return True
        if self.is_raw or self.was_whole(store.connection()):
            return False
        lost = self.lost(store.connection())
        self._counted = max(self.newest, self._first - 1, *(high for _, high in lost))
        self._gaps = [] if self.is_broken else lost
        self._raw = RawRows(self.name, self._wants_of if self._gaps else None)
        return True

    def _turn_to(self, raw: RawRows, into: sqlite3.Connection) -> None:
        """Move what was found in the pages, as far as it is not there yet."""
        self.source.close()
        moved, unreadable = self.moved, self.unreadable
        self.prefix = "moved raw "
        super().__init__(raw.conn, self.name, into, self._epochs)
        self.moved, self.unreadable = moved, unreadable
        self._raw, self.is_raw = None, True

    def wants(self, seq: int) -> bool:
        """See :meth:`Transfer.wants`."""
        return not self._gaps or _is_within(self._gaps, seq, seq)

    def _wants_of(self, first: int, last: int) -> bool:
        return _is_within(self._gaps, first, last)

    def count_missing(
        self, conn: sqlite3.Connection, gaps: list[tuple[int, int]], moved: list[int], *, is_last: bool
    ) -> int:
        """See :meth:`Transfer.count_missing`. What SQLite could not read, and is found after all, is not missing."""
        if not self.is_raw:
            return super().count_missing(conn, gaps, moved, is_last=is_last)
        lost = self.lost(conn)
        missing = -sum(_is_within(lost, seq, seq) for seq in moved)
        missing += count((max(low, self._counted + 1), high) for low, high in gaps if high > self._counted)
        end = max(self.newest, self._counted) + 1
        if is_last and end <= self._should_end and (end, self._should_end) not in lost:
            self.note_lost(conn, [(end, self._should_end)])
            missing += self._should_end - end + 1
        return missing

    def note(self, conn: sqlite3.Connection, moved: int, unreadable: int) -> None:
        """See :meth:`Transfer.note`. Of all processes that are at it, and of all looks."""
        is_ours = meta.get(conn, "damaged_file") == self.name
        before = [whole(meta.get(conn, key)) if is_ours else 0 for key in ("salvaged", "unreadable")]
        nothing = self.is_known and not moved and not unreadable
        if is_ours or not nothing:  # else the last words are another file's
            self._total = before[0] + moved, max(0, before[1] + unreadable)
        if nothing:
            return
        meta.put(conn, "damaged_at", str(time.time()))
        meta.put(conn, "damaged_file", self.name)
        meta.put(conn, "salvaged", str(self._total[0]))
        meta.put(conn, "unreadable", str(self._total[1]))

    def done(self, store: Store) -> bool:
        """See :meth:`Transfer.done`."""
        self.source.close()
        if not self.is_known or self.moved or self.unreadable:  # else it was another process, or the second look
            say(
                f"journal {store.path} was damaged ({self._reason}) and is set aside as {self.name}; {self._total[0]:,}"
                f" pending records were salvaged, {self._total[1]:,} could not be read"
            )
        return set_aside.done(self.name)


def _is_within(spans: list[tuple[int, int]], first: int, last: int) -> bool:
    """Whether one of the spans, in order, has some of the seqs from ``first`` to ``last``."""
    place = bisect_right(spans, (last, 2**63)) - 1
    return place >= 0 and first <= spans[place][1]


def resume(store: Store, under_way: list[Transfer]) -> None:
    """Add what was set aside and not salvaged, by whichever process (store's lock held).

    The newest first: it has what was salvaged of those before, and says so.
    """
    at_it = {transfer.name for transfer in under_way}
    for name in reversed(set_aside.unfinished(store.path)):
        marker = set_aside.read(name)
        if name in at_it or marker is None:  # another process is done with it: without the epochs, ids would differ
            continue
        try:
            under_way.append(Salvage(_open_aside(name), name, marker, store.connection()))
        except JournalError as error:
            if isinstance(error, JournalMissing) and not set_aside.done(name):
                continue  # the rename is still due; or somebody took it away, which is said if it stays so
            say(f"journal {store.path} was damaged, and cannot be salvaged: {error}")


def _open_aside(name: str) -> sqlite3.Connection:
    if files.check_file(name) is None:
        raise files.missing(name)
    owner = files.owner_of(name.rpartition(set_aside.DAMAGED)[0])
    if not files.is_sound_at(name, owner):
        raise JournalDenied(name, f"does not belong to the journal's owner (uid {owner})", "see who made it")
    files.check_beside(name, owner)
    if os.path.getsize(name) < SMALLEST:  # SQLite removes a -wal beside such a file, also if it may only read
        return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    # Only to read: closing it then neither checkpoints nor removes the -wal, to which another process may still write.
    conn = sqlite3.connect(files.uri(name, "mode=ro"), uri=True, isolation_level=None, check_same_thread=False)
    conn.text_factory = text_of
    conn.execute("PRAGMA trusted_schema=OFF")
    return conn
