"""A look at a file before it is opened: refuse a foreign or damaged one before anything is written.

Not even a -shm is to appear beside it: SQLite's ``immutable`` mode, and never ``open()``, see ``files``. The look takes
no lock, so it may see a journal that another process is just making: torn, without its application_id. What it says
counts only once the file has been left alone for a moment.
"""

import itertools
import os
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..errors import JournalBusy, JournalForeign
from ..runtime import identity
from ..runtime.clock import monotonic
from ..runtime.fork import importing
from ..runtime.native import sleep
from . import files
from .commit_lock import SUFFIX as COMMIT_SUFFIX
from .sqlite_codes import primary_code

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
APPLICATION_ID = 0x4C617374  # "Last"
SECONDS = 0.5  # for another process to make a journal
LOOKS = 10  # that are made at least: on a busy machine one may take all that time
HANG_SECONDS = 10.0  # in which an opening ends, whatever races it takes part in


def look_at(path: str) -> None:
    """Raise JournalForeign, JournalBusy or what SQLite says of damage."""
    deadline = monotonic() + SECONDS
    for looks in itertools.count(1):
        before = _state(path)
        try:
            _look_once(path)
        except (JournalForeign, sqlite3.DatabaseError) as error:
            if primary_code(error) == sqlite3.SQLITE_CORRUPT and _wal_has_the_rest(path):
                return  # a crash during a checkpoint: the header is ahead of the file, the WAL mends it
            if before.is_settled and _state(path) == before:
                raise
            if monotonic() > deadline and looks > LOOKS:
                if os.path.exists(path + "-journal"):
                    if os.path.exists(path + COMMIT_SUFFIX):
                        return  # one of ours was killed while it made the schema: SQLite rolls that back
                    raise JournalBusy(path, "is being made by another process", "see `lsof`") from None
                raise
            sleep(0.01)
        else:
            return


def never_hanging(path: str, opening: "Callable[[], T]") -> T:
    """For the command line, whose journals may be anybody's: ``opening``, which gives up after ``HANG_SECONDS``.

    The owner of the folder may put a FIFO at the path between the look and the opening, and SQLite would wait in
    open(2) for ever. So that is done by a thread, which is left behind there.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(opening())
        except BaseException as error:  # for the thread that waits
            failed.append(error)

    thread = threading.Thread(target=identity.carried(work), name="lastwords-open", daemon=True)
    thread.start()
    thread.join(HANG_SECONDS)
    if failed:
        raise failed[0]
    if not done:
        raise JournalBusy(
            path, "does not answer: it may be a FIFO that is put there again and again", "see who does it"
        )
    return done[0]


def refuse_foreign(path: str, application: int, pages: int) -> None:
    """Raise JournalForeign for a database that has something in it and is no journal."""
    if pages and application != APPLICATION_ID:
        raise JournalForeign(path, "is a database of another program", "choose another path for the journal")


def _wal_has_the_rest(path: str) -> bool:
    with importing():
        from .pages import wal_has_the_rest  # noqa: PLC0415 - no start needs it that meets no damage
    return wal_has_the_rest(path)


class _State(NamedTuple):
    """Of a file that is looked at. A look counts if it is the same before and after, however long that took."""

    is_settled: bool
    size: int
    written_at: int  # ns


def _state(path: str) -> _State:
    status = os.stat(path)
    # The schema is made in one rollback-journal transaction. The pause is coarser than any file system's time stamps.
    is_settled = not os.path.exists(path + "-journal") and abs(time.time() - status.st_mtime) > 0.05
    return _State(is_settled, status.st_size, status.st_mtime_ns)


def _look_once(path: str) -> None:
    conn = sqlite3.connect(files.uri(path, "mode=ro&immutable=1"), uri=True, isolation_level=None)
    try:
        application = conn.execute("PRAGMA application_id").fetchone()[0]
        pages = conn.execute("PRAGMA page_count").fetchone()[0]
    finally:
        conn.close()
    refuse_foreign(path, application, pages)
