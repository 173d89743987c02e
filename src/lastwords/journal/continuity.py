"""Whether a file goes on where the journal was: no id is given twice, and what is missing is known and said.

Theory of operation
-------------------
A ``-wal`` that was removed at rest, a backup that was copied over the file, a power cut: what is there looks sound, and
ends earlier than the journal did. So how far it was is noted in the ``.commit`` file, which none of these touches: by
the keeper when it looks after new records, and at the end of a handler; never by a caller. Whoever opens the file next
compares the two, counts what is missing in ``meta``, says it once, and writes a new note with its own.

Rules
-----
* The note may be older than what was committed, so more may be missing: "at least". It is exact if the one who wrote it
  was the last to have the journal open.
* It counts for one journal, which has a name in ``meta``, and in the file in which it was written: a ``.commit`` that
  was copied along with a running journal says nothing about the copy.
* One that is torn, of an older version or absent is none. None of this is ever a reason not to open a journal.
* It is written through the descriptor of the commit lock: another one, closed, would drop this process's POSIX locks.
"""

import os
import sqlite3
import time
import zlib
from typing import TYPE_CHECKING, NamedTuple

from ..errors import JournalError
from ..runtime.signals import pass_on
from ..runtime.stderr import say
from . import epochs, files, meta
from .commit_lock import SUFFIX

if TYPE_CHECKING:
    from .files import Identity
    from .store import Store

SIZE = 128  # bytes, always: a note is written over the one before
_NEWEST = (
    "SELECT (SELECT value FROM meta WHERE key = 'journal'), (SELECT coalesce(max(seq), 0) FROM entries), settled"
    " FROM cursor"
)


class Note(NamedTuple):
    """How far the journal of that name was: its newest seq, the one up to which all was settled."""

    journal: str
    newest: int
    settled: int
    is_exact: bool


class Missing(NamedTuple):
    """What the file should have beyond its end, and does not."""

    records: int
    undelivered: int
    is_exact: bool

    def __str__(self) -> str:
        least = "" if self.is_exact else "at least "
        are = "record is" if self.records == 1 else "records are"
        return (
            f"{least}{self.records:,} acknowledged {are} missing ({self.undelivered:,} of them undelivered):"
            " its -wal was removed, the power went, or an older copy was put in its place"
        )


# --- the note -------------------------------------------------------------------------------------------


def note(store: "Store") -> None:
    """How far the journal is now, if it is open. Raises JournalError."""
    with store.lock, store.explaining:
        if not store.is_open:
            return
        held = store._conn if store.snapshot.is_held and store.sqlite_files.are_ours() else None
        if held is not None:  # it writes alone, and sees its own: a caller need not take it anew
            _note(store, _newest(held))
    if held is None:
        with store.lock, store.reading() as conn:
            _note(store, _newest(conn))


def at_end(store: "Store") -> Note | None:
    """What is to be noted when it is closed (lock held)."""
    try:
        if store.is_open:
            with store.reading() as conn:
                return _newest(conn)
    except (sqlite3.Error, JournalError, OSError) as error:  # it is closed all the same
        pass_on(error)
    return None


def note_at_rest(path: str, newest: Note | None) -> None:
    """To be called after closing it: SQLite removes the ``-wal`` if nobody else has it open."""
    if newest is None:
        return
    fd = files.open_if_sound(path + SUFFIX, files.owner_of(path), files.WRITE)
    if fd is not None:
        try:
            _write(fd, newest._replace(is_exact=not os.path.lexists(path + "-wal")))
        finally:
            os.close(fd)


def _newest(conn: sqlite3.Connection) -> Note | None:
    row = conn.execute(_NEWEST).fetchone()
    return Note(row[0], row[1], row[2], is_exact=False) if row is not None and isinstance(row[0], str) else None


def _note(store: "Store", newest: Note | None) -> None:
    fd = store.commit_lock.descriptor()
    if fd is not None and newest is not None:
        _write(fd, newest)


def _write(fd: int, newest: Note) -> None:
    fields = (newest.journal, newest.newest, newest.settled, int(newest.is_exact), os.fstat(fd).st_ino)
    text = " ".join(map(str, fields)).encode().ljust(SIZE - 10)
    try:
        os.pwrite(fd, b"%b %08x\n" % (text, zlib.crc32(text)), 0)
    except OSError as error:  # a full disk: less is known, and nothing else is wrong
        pass_on(error)


def read(fd: int | None) -> Note | None:
    """The note in a ``.commit`` file."""
    if fd is None:
        return None
    try:
        raw = os.pread(fd, SIZE, 0)
        text, sum_ = raw[: SIZE - 10], raw[SIZE - 9 : SIZE - 1]
        if len(raw) < SIZE or int(sum_, 16) != zlib.crc32(text):
            return None
        journal, newest, settled, is_exact, inode = text.decode("ascii").split()
        if int(inode) == os.fstat(fd).st_ino:
            return Note(journal, int(newest), int(settled), is_exact == "1")
    except (OSError, ValueError) as error:  # somebody else's words
        pass_on(error)
    return None


# --- what is missing ------------------------------------------------------------------------------------


def compare(conn: sqlite3.Connection, noted: Note | None) -> Missing | None:
    """What is missing in the file that ``conn`` sees. ``noted`` is to be read before: others go on committing."""
    now = None if noted is None else _newest(conn)
    if noted is None or now is None or now.journal != noted.journal or now.newest >= noted.newest:
        return None
    undelivered = noted.newest - max(now.newest, min(noted.settled, noted.newest))
    return Missing(noted.newest - now.newest, undelivered, noted.is_exact)


def missing_at(path: str, conn: sqlite3.Connection) -> Missing | None:
    """The same for the command line, which changes nothing."""
    fd = files.open_if_sound(path + SUFFIX, files.owner_of(path))
    if fd is None:
        return None
    try:
        noted = read(fd)
    finally:
        os.close(fd)
    return compare(conn, noted)


# --- opening --------------------------------------------------------------------------------------------


def go_on(store: "Store", conn: sqlite3.Connection, identity: "Identity") -> None:
    """A new epoch, unless ids go on (see :func:`epochs.go_on`); what is missing is counted and said.

    Not for a store that has had another file open: that one's entries are being moved into this one.
    """
    store.commit_lock.open()  # so that the constructor says it if that is impossible
    fd = store.commit_lock.descriptor()
    noted = None if store.is_swapping else read(fd)
    missing = compare(conn, noted)
    if missing is not None or not epochs.go_on(conn, identity, store.epochs):
        store.hold_commit_lock()
        try:
            conn.execute("BEGIN IMMEDIATE")
            missing = compare(conn, None if noted is None else read(fd))  # nobody commits now, nor counts it as well
            if missing is not None:
                _count(conn, missing)
            epochs.begin(conn, identity)
            conn.execute("COMMIT")
        finally:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
        _note(store, _newest(conn))
    store.epochs, store.is_swapping = epochs.read(conn, []), False
    if missing is not None:
        say(f"journal {store.path}: {missing}; what is logged from now on gets ids of its own")


def _count(conn: sqlite3.Connection, missing: Missing) -> None:
    noted = meta.get(conn, "missing")
    before = int(noted) if noted is not None and noted.isdecimal() else 0
    meta.put(conn, "missing", str(before + missing.records))
    meta.put(conn, "missing_at", str(time.time()))
