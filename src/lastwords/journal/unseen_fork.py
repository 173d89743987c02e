"""Whether SQLite can be used in a process that was forked by C code, without Python's hooks: tried, not believed.

Such a fork copies the library as it stands: its mutexes may be taken for ever, by a thread that is not here. So the
first use is one on a thread that we can afford to lose. If it does not come back, SQLite is not touched in this process
any more, and its records wait in memory, which is said.
"""

from __future__ import annotations

import sqlite3

from ..errors import JournalError
from ..runtime import native
from . import files
from .sqlite_files import abandon


class _Library:
    in_doubt = False
    hangs = False


_library = _Library()


def doubt() -> None:
    """The process was forked by C code."""
    _library.in_doubt = True


def refuse_if_it_hangs(path: str, seconds: float) -> None:
    """Raise JournalError if SQLite does not come back within ``seconds``."""
    if _library.in_doubt:
        _library.in_doubt, _library.hangs = False, not _comes_back(path, seconds)
    if _library.hangs:
        raise JournalError(
            path,
            "this process was forked by C code while its parent was writing, and cannot use SQLite",
            "set uWSGI's py-call-uwsgi-fork-hooks or lazy-apps",
        )


def _comes_back(path: str, seconds: float) -> bool:
    done = native.allocate_lock()
    done.acquire()

    def attempt() -> None:
        try:
            conn = sqlite3.connect(files.uri(path, "mode=rw"), uri=True, timeout=0.0, isolation_level=None)
            abandon(conn)  # closed, it would leave its descriptor to the next one, whose locks must be its own
            conn.execute("PRAGMA schema_version").fetchone()
        except sqlite3.Error:
            return  # an answer is all that is wanted
        finally:
            done.release()

    native.start_new_thread(attempt, ())
    return bool(done.acquire(timeout=seconds))
