"""A row on its way, its caller asleep: what committer.py puts on the line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.native import allocate_lock
from ..runtime.signals import pass_on

if TYPE_CHECKING:
    from ..journal.inserts import Row

FOLLOW_SECONDS = 0.02  # between two looks of a follower that nobody wakes


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
        try:
            self._sleep.release()
        except RuntimeError as error:  # it was not asleep
            pass_on(error)
