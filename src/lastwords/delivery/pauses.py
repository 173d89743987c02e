"""How long the target is to be left alone, from drain to drain, and from one run of cron to the next.

A target may ask for a pause (``TryAgain.after``). It holds in this process, also where each drain gives up at its first
failure (the resident courier). A mail that was handed over and not answered asks for one that grows
(``targets.patience``); that is kept in the journal, with the number of entries that were offered: the next run offers
the very same, so that the mail is the same. Whoever rings meanwhile (``flush()``, ``drain()``) gets a try at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from ..runtime.clock import monotonic
from ..targets.patience import Unanswered, pause_after

if TYPE_CHECKING:
    from ..journal.journal import Journal

KEY = "unanswered"


class Handover(NamedTuple):
    """``entries`` were handed over ``times`` times without an answer, the last time at ``at`` (unix seconds)."""

    times: int = 0
    entries: int = 0
    at: float = 0.0

    @classmethod
    def parse(cls, text: str | None) -> Handover:
        """From the journal; nothing for what is none."""
        try:
            times, entries, at = (text or "").split()
            return cls(max(0, int(times)), max(0, int(entries)), float(at))
        except ValueError:
            return cls()

    def __str__(self) -> str:
        return f"{self.times} {self.entries} {self.at:.3f}"

    def left(self) -> float:
        """Seconds of its pause that are left; all of it after a clock was set back."""
        if not self.times:
            return 0.0
        pause = pause_after(self.times)
        return min(pause, max(0.0, self.at + pause - time.time()))


class Pauses:
    """What one :class:`Delivery` knows of them."""

    def __init__(self) -> None:
        self._until = 0.0  # monotonic()
        self._handover = Handover()

    def begin(self, journal: Journal) -> None:
        """Before a first drain: what earlier runs have left."""
        self._handover = Handover.parse(journal.get_meta(KEY))
        self._until = max(self._until, monotonic() + self._handover.left())

    def left(self) -> float:
        """Seconds that are left."""
        return self._until - monotonic()

    def of(self, wanted: int) -> int:
        """How many of ``wanted`` entries to offer: the same as in the mail that was not answered."""
        return min(wanted, self._handover.entries) if self._handover.times else wanted

    def failed(self, error: BaseException, offered: int, journal: Journal) -> float | None:
        """The pause that follows from ``error``; None for the usual backoff."""
        after: float | None = getattr(error, "after", None)
        if isinstance(error, Unanswered):
            self._handover = Handover(self._handover.times + 1, offered, time.time())
            after = pause_after(self._handover.times)
        if after is not None:
            self._until = monotonic() + after
        if isinstance(error, Unanswered):
            journal.set_meta(KEY, str(self._handover))  # last: a full disk must not make it a mail per retry
        return after

    def accepted(self, journal: Journal) -> None:
        """It takes entries again."""
        if self._handover.times:
            journal.set_meta(KEY, str(Handover()))
            self._handover = Handover()
