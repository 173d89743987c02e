"""What SQLite says: its result codes, its text, and what its versions can be trusted with."""

from __future__ import annotations

import sqlite3

from ..errors import JournalDamaged, JournalError

VERSION = sqlite3.sqlite_version
OLDEST = (3, 24, 0)  # the first with INSERT ... ON CONFLICT DO UPDATE
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def primary_code(error: object) -> int:
    """SQLite's primary result code of an exception, 0 if it has none."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def is_busy(error: BaseException) -> bool:
    """True if another process holds the lock: worth another try."""
    return isinstance(error, sqlite3.Error) and primary_code(error) in _BUSY


def is_damage(error: object) -> bool:
    """True if the file's content is to blame."""
    if isinstance(error, JournalDamaged):
        return True
    return isinstance(error, sqlite3.DatabaseError) and primary_code(error) in _DAMAGED


def refuse_too_old(path: str) -> None:
    """JournalError where SQLite is older than ``OLDEST``: what it says of our schema sounds like damage."""
    if sqlite3.sqlite_version_info < OLDEST:
        needed = ".".join(map(str, OLDEST[:2]))
        raise JournalError(
            path,
            f"cannot be used with SQLite {sqlite3.sqlite_version}: lastwords needs {needed} or newer",
            "use a Python that was built with a newer one",
        )


def wal_reset_is_safe(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """False for the SQLite versions in which a commit may race a checkpoint (fixed in 3.51.3, 3.50.7, 3.44.6)."""
    if version >= (3, 51, 3):
        return True
    return (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)


def text_of(raw: bytes) -> str:
    """Text from the file. A flipped bit may make it no UTF-8: that row is damaged, the others must be readable."""
    return raw.decode("utf-8", "surrogateescape")
