"""A journal opened so that nothing is written: for ``status``, ``list``, ``doctor`` and every look before a change.

Theory of operation
-------------------
Two ways, chosen anew at each use, because services come and go meanwhile:

* At rest (no ``-wal``, or an empty one that nobody has open): ``immutable=1``. SQLite takes no lock and makes no side
  file, so a look leaves no trace, also on a read-only medium. It would not notice a change, so the file's size and
  time are compared before each use, and the file is opened again when they differ.
* In use, or left behind by a kill: ``mode=ro``, beside whoever writes. SQLite may rebuild its shared memory (``-shm``)
  for that, which holds nothing of the journal's; it cannot checkpoint, so the file and the ``-wal`` stay as they are.

A file of another user may be read where its mode allows it: that is what ``mode=0o640`` and a monitoring group are
for, and reading a journal runs nothing of it. Symbolic links are refused as for writing.
"""

from __future__ import annotations

import glob
import os
import stat
from typing import TYPE_CHECKING

from lastwords.errors import (
    JournalDamaged,
    JournalDenied,
    JournalError,
    JournalForeign,
    JournalMissing,
)
from lastwords.journal import files, schema, set_aside
from lastwords.journal.first_look import look_at
from lastwords.journal.line import Line
from lastwords.journal.pages import has_frames
from lastwords.journal.sqlite_codes import text_of
from lastwords.journal.store import Store
from lastwords.runtime import identity

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from contextlib import _GeneratorContextManager

SIDE_FILES = ("-wal", "-shm", ".lock", ".commit")


class ReadonlyStore(Store):
    """A :class:`Store` that only reads. Raises JournalError and its children."""

    only_reads = True

    def __init__(self, path: str) -> None:
        self._at_rest: tuple[int, int, int] | None = None  # inode, size, mtime of a file opened as immutable
        check_file(path)  # before Store looks: a folder that cannot be entered is no missing journal
        super().__init__(path, create=False)

    def connection(self, *, create: bool = True) -> sqlite3.Connection:
        conn = self._conn
        if conn is not None and (conn.in_transaction or not self._changed()):
            return conn
        self._close()
        return super().connection(create=False)

    def close(self) -> None:
        with self.lock:
            self._close()

    def writing(self) -> _GeneratorContextManager[sqlite3.Connection]:
        raise AssertionError("a journal that was opened for reading is written to")

    def _changed(self) -> bool:
        if self._at_rest is None:
            return self.identity is not None and files.identify(self.path) != self.identity
        return not self._is_at_rest() or self._mark() != self._at_rest

    def _is_at_rest(self) -> bool:
        wal = _size(self.path + "-wal")
        return wal is None or (wal == 0 and _size(self.path + "-shm") is None)

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _open_once(self, *, create: bool) -> sqlite3.Connection:
        check_file(self.path)
        self.identity = files.identify(self.path)
        files.check_beside(self.path)
        look_at(self.path)
        self._at_rest = self._mark() if self._is_at_rest() else None
        conn = self._new_connection(self.lock_timeout, self._mode())
        try:
            conn.text_factory = text_of
            conn.execute("PRAGMA trusted_schema=OFF")
            conn.execute("PRAGMA query_only=ON")
            self._check(conn)
            self.epochs = []
            self.read_epochs(conn)
        except BaseException:
            conn.close()
            raise
        return conn

    def _mode(self) -> str:
        if self._at_rest:
            return "mode=ro&immutable=1"
        # A -shm that another user's look had made would keep the service from its own journal.
        return "mode=ro" if identity.uid() in (0, files.owner_of(self.path)) else "mode=ro&readonly_shm=1"

    def _check(self, conn: sqlite3.Connection) -> None:
        if conn.execute("PRAGMA user_version").fetchone()[0] < schema.OLDEST:
            raise JournalForeign(self.path, "is of an older format", "`lastwords flush`, or its service, brings it up")
        schema.check_reader(conn, self.path)
        schema.refuse_triggers(conn, self.path)
        epochs = conn.execute("SELECT first_seq, uuid FROM epochs").fetchall()
        if not epochs or not all(type(first) is int and type(uuid) is str for first, uuid in epochs):
            raise JournalDamaged(self.path, "does not say under which ids its entries go", "restore it from a backup")
        # Touch every table: what is missing or unreadable is to be found now, before a verb has done half its work.
        conn.execute(
            "SELECT (SELECT seq FROM entries LIMIT 1), (SELECT seq FROM ahead LIMIT 1),"
            " (SELECT id FROM dead_letters LIMIT 1), (SELECT level FROM drops LIMIT 1)"
        ).fetchall()
        if conn.execute("SELECT count(*) FROM cursor").fetchone()[0] != 1:
            raise JournalDamaged(self.path, "does not say what was delivered", "restore it from a backup")


def check_file(path: str) -> os.stat_result:
    """Like ``files.check_file``, for reading: another user's file is fine if its mode allows it."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        folder = files.unreadable_folder(path) if glob.has_magic(path) else None
        if folder is not None:
            raise JournalDenied(
                path, f"the folder {folder} cannot be read by this user", "run as its owner or as root"
            ) from error
        raise _missing(path) from error
    except OSError as error:
        raise JournalDenied(path, f"cannot be reached: {error.strerror}", "check the folders above it") from error
    if stat.S_ISLNK(status.st_mode):
        raise JournalDenied(path, "is a symbolic link", "name the file it points to")
    if not stat.S_ISREG(status.st_mode):
        raise JournalError(path, "is not a regular file", "name a file, not a folder or device")
    files.check_acting(path, status.st_uid)
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise JournalDenied(path, "cannot be read by this user", "run as its owner or as root")
    if status.st_size == 0 and has_frames(path):
        raise JournalDamaged(path, "was cut to nothing, and left its -wal", "`lastwords flush` delivers what that has")
    if status.st_size == 0:
        raise JournalMissing(path, "is empty: no journal has been made in it", "a service makes it when it first logs")
    return status


def _missing(path: str) -> JournalMissing:
    """Most often it is a slip of the finger."""
    import difflib  # noqa: PLC0415 - a slip is rare

    folder, name = os.path.split(path)
    try:
        names = [other for other in os.listdir(folder) if not other.endswith(SIDE_FILES)]
    except FileNotFoundError:
        return JournalMissing(path, "no such journal", f"there is no folder {folder}")
    except OSError:  # a folder that may be entered but not read
        return files.missing(path)
    like = difflib.get_close_matches(name, [other for other in names if set_aside.DAMAGED not in other], 1)
    if not like:
        return files.missing(path)
    return JournalMissing(path, "no such journal", f"there is {os.path.join(folder, like[0])}")


def look(path: str) -> Line:
    """Open a journal for reading. Raises JournalError and its children."""
    return Line(ReadonlyStore(path))


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def sizes(path: str) -> tuple[int, int]:
    """Bytes of the file and of its -wal."""
    return _size(path) or 0, _size(path + "-wal") or 0


def set_aside_files(path: str) -> list[str]:
    """Damaged predecessors of a journal that its service set aside, until somebody has looked and removed them."""
    folder, begin = os.path.split(set_aside.prefix(path))
    try:
        found = sorted(other for other in os.listdir(folder) if other.startswith(begin))
    except OSError:  # a folder that may be entered but not read
        return []
    paths = [os.path.join(folder, other) for other in found if not other.endswith((*SIDE_FILES, set_aside.MARKER))]
    owner = files.owner_of(path)  # in a folder like /tmp anybody can make files of that name
    return [aside for aside in paths if files.is_sound_at(aside, owner)]


def side_files(path: str) -> Iterator[str]:
    """The files that belong to a journal and are there."""
    for suffix in SIDE_FILES:
        if os.path.lexists(path + suffix):
            yield path + suffix
