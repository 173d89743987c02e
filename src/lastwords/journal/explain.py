"""What SQLite or the file system says against a journal, as an error with a path, a hint and an exit code.

SQLite's exceptions stay in this room: whoever lends a connection does so inside :class:`SqliteExplained`.
"""

from __future__ import annotations

import errno
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import JournalBusy, JournalDamaged, JournalDenied, JournalError, JournalFull
from . import ownership, places
from .sqlite_codes import is_busy, is_damage, primary_code

if TYPE_CHECKING:
    from collections.abc import Iterator

TROUBLE = (JournalError, OSError)  # what a journal raises that cannot be used

_SHM_SIZE = 4874  # SQLITE_IOERR_SHMSIZE: no room for the shared memory; the module has no name for it in Python 3.11


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
    return JournalError(path, f"{type(error).__name__}: {error}", "check the disk and the folder")


def _is_full(error: BaseException | None) -> bool:
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return isinstance(error, sqlite3.Error) and (
        primary_code(error) == sqlite3.SQLITE_FULL or getattr(error, "sqlite_errorcode", 0) == _SHM_SIZE
    )


def explain_sqlite(path: str, error: sqlite3.Error, *, reading: bool) -> JournalError:
    """``reading``: no SQL that finds something else than it expects is ours to blame."""
    code = primary_code(error)
    if _is_full(error):
        return JournalFull(path, "the disk is full", "free some space, and run this again")
    if is_damage(error):
        return JournalDamaged(path, f"is damaged: {error}", "see `lastwords doctor`")
    if is_busy(error):
        return JournalBusy(path, f"another program keeps it locked: {error}", "see `lsof` for who has it open")
    if (found := places.trouble(path)) is not None:
        return found
    if reading and code == sqlite3.SQLITE_CANTOPEN:
        return JournalDenied(
            path,
            f"cannot be opened together with its -wal: {error}",
            "run as its owner, or copy it with its -wal to a folder that you can write",
        )
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
        return JournalDenied(path, f"cannot be written: {error}", "check mode and owner of file and folder")
    is_gone = code == sqlite3.SQLITE_ERROR and str(error).startswith("no such ")  # table, column: a damaged schema
    if is_gone or (reading and code in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH}):
        return JournalDamaged(path, f"does not hold what a journal holds: {error}", "see `lastwords doctor`")
    return JournalError(path, f"cannot be used: {error}", "check the disk, the folder and their modes")


class SqliteExplained:
    """What SQLite raises inside is a JournalError, see :func:`explain_sqlite`. Holds nothing, so it may be nested."""

    def __init__(self, path: str, *, reading: bool) -> None:
        self._path = path
        self._reading = reading

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise explain_sqlite(self._path, error, reading=self._reading) from error


def reason_of(error: BaseException) -> str:
    """What ``error`` says, for a line that names the journal already. Of a defect of ours, its name, too."""
    if isinstance(error, JournalError):
        return error.problem.removeprefix("is damaged: ")
    return str(error) if isinstance(error, OSError | sqlite3.Error) else repr(error)


@contextmanager
def explained(path: str) -> Iterator[None]:
    """What goes wrong inside is a JournalError; root at the command line is the journal's owner inside."""
    try:
        with ownership.as_owner(path):
            yield
    except BrokenPipeError:  # whoever read our output went away
        raise
    except (JournalError, OSError, ValueError, TypeError) as error:
        found = explain(path, error)
        if found is error:
            raise
        raise found from error
