"""The marks of a delivery: what was accepted, refused or buried is written into the journal before anything else.

If it cannot be (the disk is full), it is owed: nothing more is delivered, and only the mark is tried again. A damaged
file is no reason to wait: the damage goes to whoever drains, as it does when it is found while reading.
"""

from __future__ import annotations

import enum
import time
from typing import TYPE_CHECKING

from ..errors import JournalDamaged
from ..journal.explain import TROUBLE, reason_of
from ..journal.rows import FilledIn
from . import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..journal.line import Line
    from ..journal.rows import Burial, Cursor


class Stalled(Exception):  # noqa: N818 - a state of the line
    """A pause is due. ``after``: seconds the target asked for."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        self.after = after
        super().__init__(reason)


class Did(enum.Enum):
    """What a step came to."""

    PROGRESS = 1  # something was settled or buried
    AGAIN = 2  # nothing was, but the next try is due at once
    NOTHING = 3  # nothing is pending


class Marks:
    """The place in the line, and how it moves. ``on_settled``: called after each mark."""

    def __init__(self, journal: Line, on_settled: Callable[[int], None] | None) -> None:
        self.journal = journal
        self.on_settled = on_settled
        self.buried = 0  # entries this object buried
        self.delivered = 0
        self.last_error: str | None = None
        self._cursor: Cursor | None = None
        self._state = verdict.State()
        self._owed: Callable[[], Did] | None = None
        self._asked: float | None = None

    @property
    def settled(self) -> int:
        """The cursor, as this object last saw it."""
        return 0 if self._cursor is None else self._cursor.settled

    def _take_up(self) -> None:
        """Look where the line stands: others may have delivered meanwhile."""
        before, cursor = self._cursor, self.journal.cursor()
        self._cursor, self._state = cursor, verdict.start(cursor.attempts, cursor.probe)
        if before is None:
            self._owed = self._try_to_write
        elif (before.fence, before.settled) != (cursor.fence, cursor.settled):
            self._owed = None  # else what was accepted in the last drain is still to be marked

    def _try_to_write(self) -> Did:
        """A first mark before anything is delivered: on a full disk, each run of cron would deliver the same again."""
        self.journal.set_meta("began", f"{time.time():.6f}")
        return Did.AGAIN

    def _mark(self, mark: Callable[[], Did]) -> Did:
        """Do it, or owe it: what was accepted must be marked before anything else is delivered."""
        self._owed = mark
        try:
            did = mark()
        except FilledIn:  # what is first now has not been offered yet: all is offered again
            self._owed = None
            raise
        except JournalDamaged:
            raise  # it is not tried again here, but salvaged; the mark is owed to what comes of that
        except TROUBLE as error:
            self._asked = None
            self.last_error = f"what is delivered cannot be marked, so nothing more is delivered: {reason_of(error)}"
            raise Stalled(self.last_error) from error
        self._owed = None
        return did

    def _settle_cold(
        self,
        cursor: Cursor,
        upto: int,
        delivered: int,
        burials: Sequence[Burial],
        state: verdict.State | None = None,
    ) -> Did:
        state = state or verdict.State()
        moved = self.journal.mark(
            cursor, upto=upto, delivered=delivered, buried=burials, attempts=state.attempts, probe=state.probe
        )
        self.buried += len(burials)
        return self._moved(moved, state, delivered)

    def _settle_ahead(
        self, cursor: Cursor, state: verdict.State, ahead: Sequence[int], burials: Sequence[Burial]
    ) -> Did:
        moved = self.journal.mark(
            cursor,
            upto=cursor.settled,
            delivered=len(ahead),
            buried=burials,
            ahead=ahead,
            attempts=state.attempts,
            probe=state.probe,
        )
        self.buried += len(burials)
        return self._moved(moved, state, len(ahead))

    def _moved(self, cursor: Cursor, state: verdict.State, delivered: int) -> Did:
        self._cursor = cursor
        self._state = state
        self.delivered += delivered
        self._asked = None
        if self.on_settled is not None:
            self.on_settled(delivered)
        return Did.PROGRESS
