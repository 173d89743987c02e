"""A look at a file before it is opened: refuse a foreign or damaged one before anything is written.

Not even a -shm is to appear beside it. The look takes no lock, so it may see a journal that another process is just
making: torn, without its application_id. What it says counts only once the file has been left alone for a moment.
"""

from __future__ import annotations

import os
import sqlite3
import time

from ..errors import JournalBusy, JournalForeign
from ..runtime.clock import monotonic
from ..runtime.native import sleep
from . import files
from .commit_lock import SUFFIX as COMMIT_SUFFIX
from .sqlite_codes import primary_code

APPLICATION_ID = 0x4C617374  # "Last"
SECONDS = 0.5  # for another process to make a journal


def look_at(path: str) -> None:
    """Raise JournalForeign, JournalBusy or what SQLite says of damage."""
    deadline = monotonic() + SECONDS
    while True:
        try:
            _look_once(path)
        except (JournalForeign, sqlite3.DatabaseError) as error:
            if primary_code(error) == sqlite3.SQLITE_CORRUPT and os.path.exists(path + "-wal"):
                return  # a crash amid a checkpoint: the header is ahead of the file, the WAL mends it
            if _is_settled(path):
                raise
            if monotonic() > deadline:
                if os.path.exists(path + "-journal"):
                    if os.path.exists(path + COMMIT_SUFFIX):
                        return  # one of ours was killed while it made the schema: SQLite rolls that back
                    raise JournalBusy(path, "is being made by another process", "see `lsof`") from None
                raise
            sleep(0.01)
        else:
            return


def refuse_foreign(path: str, application: int, pages: int) -> None:
    """Raise JournalForeign for a database that has something in it and is no journal."""
    if pages and application != APPLICATION_ID:
        raise JournalForeign(path, "is a database of another program", "choose another path for the journal")


def _is_settled(path: str) -> bool:
    if os.path.exists(path + "-journal"):
        return False  # the schema is made in one rollback-journal transaction
    # Coarser than any file system's time stamps.
    return abs(time.time() - os.stat(path).st_mtime) > 0.05


def _look_once(path: str) -> None:
    conn = sqlite3.connect(files.uri(path, "mode=ro&immutable=1"), uri=True, isolation_level=None)
    try:
        application = conn.execute("PRAGMA application_id").fetchone()[0]
        pages = conn.execute("PRAGMA page_count").fetchone()[0]
    finally:
        conn.close()
    refuse_foreign(path, application, pages)
