"""Whose turn it is: a caller that waits goes before a thread of ours that comes back for the store's lock.

Theory of operation
-------------------
A thread that gives a lock back and goes on keeps the GIL, and a caller that was woken cannot run: it waits for the next
30 entries to be decoded, say, and whoever wants the lock next may be faster once more. So a call that met the end
of a read waited for the read, the decoding, the target and the mark. Giving up the interpreter for an instant does not
help, as it takes some 50 us until a sleeper is awake and asks for it. So a thread of ours sleeps, if a caller waits,
until that one has committed, for a few turns at most. In a flood some caller always waits: there the thread waits
for one commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.native import sleep

if TYPE_CHECKING:
    from collections.abc import Callable

TURN_SECONDS = 0.00005  # sleeping takes as much again
MOST_TURNS = 4


class Turns:
    """Those of one store. ``waiting``: 0 if no caller waits, else a number that is another one after each commit."""

    def __init__(self) -> None:
        self.waiting: Callable[[], int] = int

    def let_callers(self) -> None:
        """By a thread of ours, between two pieces of work, without a lock."""
        now = self.waiting()
        for _ in range(MOST_TURNS):
            if not now or self.waiting() != now:
                return
            sleep(TURN_SECONDS)
