"""A connection's first statements: what every connection of ours is told, and the schema, which is made or checked.

The tables are made in one transaction, before the switch to WAL, so that ``application_id`` is always in the main file.
The views come after it: then the pages that say which tables there are are in the ``-wal``, too, and plain SQLite can
read that if the main file is lost before the first checkpoint.

What a file says about itself is input: one that has triggers, or is of a newer format, is refused.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

from ..errors import JournalDamaged, JournalForeign
from ..runtime.fork import importing
from . import meta, new_schema
from .first_look import APPLICATION_ID, refuse_foreign
from .sqlite_codes import text_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

FORMAT = 2  # the number of migrations
OLDEST = 1  # that can be looked at as it is: a mere reader migrates nothing


def sync_for_real(conn: sqlite3.Connection) -> None:
    """Where an fsync stops at the drive's cache: on macOS."""
    if sys.platform == "darwin":
        conn.execute("PRAGMA fullfsync=ON")
        conn.execute("PRAGMA checkpoint_fullfsync=ON")


def prepare(
    conn: sqlite3.Connection, path: str, hold_commit_lock: Callable[[], None], begin_epoch: Callable[[], None]
) -> None:
    """Bring ``conn``, which syncs each commit, to where it can be used. ``begin_epoch``: inside a transaction."""
    conn.text_factory = text_of
    # A journal is input: no function of this process may run from a forged view or trigger.
    conn.execute("PRAGMA trusted_schema=OFF")
    # Builds differ. What is left in a page that was freed, a salvage would find: delivered or dropped, it came again.
    conn.execute("PRAGMA secure_delete=ON")
    conn.execute("PRAGMA wal_autocheckpoint=0")  # the keeper's work, never a caller's
    sync_for_real(conn)
    version = conn.execute("PRAGMA user_version").fetchone()[0]
    if version:  # else it is empty, or another process is making it
        application = conn.execute("PRAGMA application_id").fetchone()[0]
        refuse_foreign(path, application, 1)
        check_reader(conn, path)
        refuse_triggers(conn, path)
    if version < FORMAT:
        hold_commit_lock()
        _migrate(conn, begin_epoch, is_new=not version)
    if conn.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        conn.execute("PRAGMA journal_mode=wal")
    if not _has_views(conn):
        hold_commit_lock()
        _make_views(conn)


def _has_views(conn: sqlite3.Connection) -> bool:
    return conn.execute("SELECT 1 FROM sqlite_master WHERE type = 'view' LIMIT 1").fetchone() is not None


def _make_views(conn: sqlite3.Connection) -> None:
    try:
        conn.execute("BEGIN IMMEDIATE")
        if not _has_views(conn):  # nobody was faster
            for statement in filter(_is_view, new_schema.STATEMENTS):
                conn.execute(statement)
        conn.execute("COMMIT")
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")


def _is_view(statement: str) -> bool:
    return statement.startswith("CREATE VIEW")


def _migrate(conn: sqlite3.Connection, begin_epoch: Callable[[], None], *, is_new: bool) -> None:
    if not is_new:
        _steps()  # imported before it begins
    try:
        # All in one transaction: a kill leaves what was there, an empty file, or one that SQLite rolls back. Of a new
        # file not IMMEDIATE: that writes the first page, and these are set before it or never.
        conn.execute("BEGIN" if is_new else "BEGIN IMMEDIATE")
        if is_new:
            conn.execute(f"PRAGMA page_size={new_schema.PAGE_SIZE}")
            conn.execute("PRAGMA auto_vacuum=INCREMENTAL")
        version = conn.execute("PRAGMA user_version").fetchone()[0]
        if version < FORMAT:  # nobody was faster
            if version == 0:
                for statement in itertools.filterfalse(_is_view, new_schema.STATEMENTS):
                    conn.execute(statement)
            else:
                _steps()(conn)
            conn.execute(f"PRAGMA application_id={APPLICATION_ID}")
            conn.execute(f"PRAGMA user_version={FORMAT}")
            if is_new:
                begin_epoch()
        conn.execute("COMMIT")
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")


def _steps() -> Callable[[sqlite3.Connection], None]:
    with importing():
        from sqlite_utils import Database  # noqa: PLC0415 - 58 ms, needed for an older journal only

        from lastwords.migrations.migrations import migration  # noqa: PLC0415

    def apply(conn: sqlite3.Connection) -> None:
        migration.apply(Database(conn, execute_plugins=False))

    return apply


def refuse_triggers(conn: sqlite3.Connection, path: str) -> None:
    """Raise JournalForeign for a journal that somebody changed."""
    if conn.execute("SELECT 1 FROM sqlite_master WHERE type = 'trigger' LIMIT 1").fetchone():
        raise JournalForeign(path, "has triggers, which no journal has", "somebody changed it; see `.schema`")


def check_reader(conn: sqlite3.Connection, path: str) -> None:
    """Raise JournalForeign for a journal of a newer format, JournalDamaged for one that does not say."""
    oldest = meta.get(conn, "min_reader")
    if oldest is None or not (oldest.isdecimal() and len(oldest) < 10):
        raise JournalDamaged(path, "does not say which format it has", "see `lastwords doctor`")
    if int(oldest) > FORMAT:
        raise JournalForeign(
            path, f"is of format {oldest}, newer than this lastwords reads ({FORMAT})", "upgrade lastwords"
        )
