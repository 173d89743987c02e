"""An opening that other processes are in the way of: it is tried again, within the lock timeout.

Those that open at once meet SQLITE_BUSY, which ``journal_mode=wal`` reports without waiting. Others make the file, set
a damaged one aside or renew it meanwhile: whatever was found out about the one before says nothing of the one that is
there now, be it that it is damaged, missing or not to be opened.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, TypeVar

from ..errors import JournalBusy, JournalError
from ..runtime.clock import monotonic
from . import files
from .sqlite_codes import is_busy

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Replaced(JournalBusy):
    """The file at the path is not the one that an opening began with."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "was replaced while it was opened", "try again")


def until_steady(path: str, opening: Callable[[], T], seconds: float) -> T:
    """What ``opening`` returns or raises, once nobody is in its way; after ``seconds`` in any case."""
    deadline = monotonic() + seconds
    try:
        return _steadily(path, opening)
    except (sqlite3.Error, Replaced) as error:
        if not _is_race(error):
            raise
    from ..runtime import retrying  # noqa: PLC0415 - only when processes raced

    return retrying.until_open(lambda: _steadily(path, opening), _is_race, max(0.1, deadline - monotonic()))


def _steadily(path: str, opening: Callable[[], T]) -> T:
    identity = files.identify(path)
    try:
        return opening()
    except (sqlite3.Error, JournalError, OSError) as error:
        if files.identify(path) == identity:
            raise
        raise Replaced(path) from error


def _is_race(error: BaseException) -> bool:
    return isinstance(error, Replaced) or is_busy(error)
