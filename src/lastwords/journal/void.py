"""A path without a journal: nothing, or a file that was cut to nothing; and what may have been left beside it.

A process that has a removed file open still sees it, with its ``-wal`` and ``-shm``: their names go, or the new file
would be read with what is not its own. At rest they are all that is left of it, and are set aside like a
damaged journal.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import JournalDamaged
from ..runtime.fork import importing
from . import files, set_aside
from .sqlite_files import are_in_use

if TYPE_CHECKING:
    from collections.abc import Callable


def is_void(path: str) -> bool:
    """No file, or an empty one beside a -wal: that is another's, removed. We switch to WAL with the schema in.

    The size last: a file that a sibling is just making has a schema before it has a -wal.
    """
    has_side_files = files.has_side_files(path)
    status = files.check_file(path)
    return status is None or (status.st_size == 0 and has_side_files)


def refuse_to_lose(path: str, mode: int, *, create: bool) -> None:
    """Raise JournalDamaged if there is a -wal with something in it, and no process that would move it."""
    removed = files.check_file(path) is None
    if (removed and not create) or are_in_use(path):
        return
    if not os.path.lexists(path + "-wal"):
        return
    with importing():
        from .pages import has_frames  # noqa: PLC0415 - no start needs it that meets no damage
    if has_frames(path) and is_void(path):  # else a sibling has made the journal meanwhile, and they are its own
        if removed:
            files.create_file(path, mode)
        raise JournalDamaged(path, "was removed or cut to nothing, and left its -wal", "see `lastwords doctor`")


def make(path: str, mode: int, hold_commit_lock: Callable[[], None]) -> None:
    """Make the file, without the -wal and -shm of one that was removed."""
    files.create_file(path, mode)  # first: the lock is made beside it
    if files.has_side_files(path):
        hold_commit_lock()  # whoever finds them waits here, and removes none that belong to a file just made
        if is_void(path):
            set_aside.finish(path)
            files.remove_side_files(path)
            files.create_file(path, mode)  # a rename that was still due may have taken it
