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

import errno
import glob
import os
import sqlite3
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lastwords.errors import (
    JournalBusy,
    JournalDamaged,
    JournalDenied,
    JournalError,
    JournalForeign,
    JournalFull,
    JournalMissing,
)
from lastwords.journal import files, places, set_aside
from lastwords.journal.first_look import look_at
from lastwords.journal.journal import Journal
from lastwords.journal.sqlite_codes import is_busy, is_damage, primary_code, text_of
from lastwords.journal.store import FORMAT, Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import _GeneratorContextManager

SIDE_FILES = ("-wal", "-shm", ".lock", ".commit")


_SHM_SIZE = 4874  # SQLITE_IOERR_SHMSIZE: no room for the shared memory; the module has no name for it in Python 3.11


class ReadonlyStore(Store):
    """A :class:`Store` that only reads. Raises JournalError and its children."""

    def __init__(self, path: str) -> None:
        self._at_rest: tuple[int, int, int] | None = None  # inode, size, mtime of a file opened as immutable
        check_file(path)  # before Store looks: a folder that cannot be entered is no missing journal
        super().__init__(path, create=False)

    def _check_place(self) -> None:
        """A copy, or what is left of a journal, can be read anywhere."""

    def connection(self, *, create: bool = True) -> sqlite3.Connection:
        conn = self._conn
        if conn is not None and (conn.in_transaction or not self._changed()):
            return conn
        self._close()
        return super().connection(create=False)

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
        conn = sqlite3.connect(
            files.uri(self.path, "mode=ro&immutable=1" if self._at_rest else "mode=ro"),
            uri=True,
            timeout=self.lock_timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            conn.text_factory = text_of
            conn.execute("PRAGMA trusted_schema=OFF")
            conn.execute("PRAGMA query_only=ON")
            self._check(conn)
            self.epochs = conn.execute("SELECT first_seq, uuid FROM epochs ORDER BY first_seq").fetchall()
        except BaseException:
            conn.close()
            raise
        return conn

    def _check(self, conn: sqlite3.Connection) -> None:
        if conn.execute("PRAGMA user_version").fetchone()[0] < FORMAT:
            raise JournalForeign(self.path, "is of an older format", "`lastwords flush`, or its service, brings it up")
        self._check_reader(conn)
        if conn.execute("SELECT 1 FROM sqlite_master WHERE type = 'trigger' LIMIT 1").fetchone():
            raise JournalForeign(self.path, "has triggers, which no journal has", "somebody changed it; see `.schema`")
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

    def _explain(self, error: sqlite3.Error) -> JournalError:
        return explain(self.path, error)


def explain(path: str, error: Exception) -> JournalError:
    """Whatever a look or a drain raised, as an error with a path, a hint and an exit code."""
    if _is_full(error) or (isinstance(error, JournalError) and _is_full(error.__cause__)):
        return JournalFull(path, "the disk is full", "free some space, and run this again")
    if isinstance(error, JournalError):
        return error
    if isinstance(error, PermissionError):
        return JournalDenied(path, f"permission denied: {error}", "run as its owner or as root")
    if isinstance(error, OSError):
        return places.refusal(path, error)
    if isinstance(error, ValueError | TypeError):  # columns of forged or damaged rows may hold anything
        return JournalDamaged(path, f"does not hold what a journal holds: {error}", "see `lastwords doctor`")
    if isinstance(error, sqlite3.Error):
        return _explain_sqlite(path, error)
    return JournalError(path, f"{type(error).__name__}: {error}", "check the disk and the folder")


def _is_full(error: BaseException | None) -> bool:
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return isinstance(error, sqlite3.Error) and (
        primary_code(error) == sqlite3.SQLITE_FULL or getattr(error, "sqlite_errorcode", 0) == _SHM_SIZE
    )


def _explain_sqlite(path: str, error: sqlite3.Error) -> JournalError:
    code = primary_code(error)
    if is_damage(error):
        return JournalDamaged(path, f"is damaged: {error}", "see `lastwords doctor`")
    if is_busy(error):
        return JournalBusy(path, f"another program keeps it locked: {error}", "see `lsof` for who has it open")
    if (found := places.trouble(path)) is not None:
        return found
    if code == sqlite3.SQLITE_CANTOPEN:
        return JournalDenied(
            path,
            f"cannot be opened together with its -wal: {error}",
            "run as its owner, or copy it with its -wal to a folder that you can write",
        )
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
        return JournalDenied(path, f"cannot be written: {error}", "check mode and owner of file and folder")
    if code in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH}:  # no such table, no such column
        return JournalDamaged(path, f"does not hold what a journal holds: {error}", "see `lastwords doctor`")
    return JournalError(path, f"cannot be used: {error}", "check the disk, the folder and their modes")


@contextmanager
def explained(path: str) -> Iterator[None]:
    """What goes wrong inside is a JournalError."""
    try:
        yield
    except BrokenPipeError:  # whoever read our output went away
        raise
    except (JournalError, sqlite3.Error, OSError, ValueError, TypeError) as error:
        found = explain(path, error)
        if found is error:
            raise
        raise found from error


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
        raise files.missing(path) from error
    except OSError as error:
        raise JournalDenied(path, f"cannot be reached: {error.strerror}", "check the folders above it") from error
    if stat.S_ISLNK(status.st_mode):
        raise JournalDenied(path, "is a symbolic link", "name the file it points to")
    if not stat.S_ISREG(status.st_mode):
        raise JournalError(path, "is not a regular file", "name a file, not a folder or device")
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise JournalDenied(path, "cannot be read by this user", "run as its owner or as root")
    if status.st_size == 0:
        raise JournalMissing(path, "is empty: no journal has been made in it", "a service makes it when it first logs")
    return status


def look(path: str) -> Journal:
    """Open a journal for reading. Raises JournalError and its children."""
    return Journal(ReadonlyStore(path))


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
    folder, name = os.path.split(path)
    try:
        found = sorted(other for other in os.listdir(folder) if other.startswith(name + ".damaged-"))
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
