"""A row on its way, its caller asleep, and the statements that take it: what commit.py puts on the line."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ..runtime.native import allocate_lock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .memory_buffer import Row

FOLLOW_SECONDS = 0.02  # between two looks of a follower that nobody wakes


_VALUES = "(?, ?, ?, ?)"
_INSERT = "INSERT INTO entries (created, level, payload, checksum) VALUES "
INSERT_ONE = _INSERT + _VALUES
_statements: dict[int, str] = {}


def insertion(rows: list[Row]) -> tuple[str, Sequence[object]]:
    """One statement for ``rows``, and its values."""
    count = len(rows)
    if count == 1:
        return INSERT_ONE, rows[0]
    text = _statements.get(count)
    if text is None:
        text = _statements[count] = _INSERT + ", ".join([_VALUES] * count)
    return text, [value for row in rows for value in row]


class Ticket:
    """A row on its way. Its caller sleeps on a lock of its own, so that only its own end wakes it."""

    __slots__ = ("_sleep", "done", "row")

    def __init__(self, row: Row) -> None:
        self.row = row
        self.done = False
        self._sleep = allocate_lock()
        self._sleep.acquire()

    def wait(self) -> None:
        """Until :meth:`wake`, or for ``FOLLOW_SECONDS``."""
        self._sleep.acquire(timeout=FOLLOW_SECONDS)

    def wake(self) -> None:
        """Its caller is to look: is it done, or can it lead."""
        with suppress(RuntimeError):  # it was not asleep
            self._sleep.release()
