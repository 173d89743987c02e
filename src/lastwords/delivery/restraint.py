"""How much a target gets at once, and how long it is left alone: from drain to drain, from one run of cron to the next.

A target may ask for a pause (``TryAgain.after``). It holds in this process, also where each drain gives up at its first
failure (the resident courier). A mail that was handed over and not answered asks for one that grows, see
``targets.mail_answer``; that is kept in the journal, with the number of entries that were offered: the next run offers
the very same, so that the mail is the same. Whoever rings meanwhile (``flush()``, ``drain()``) gets a try at once.

A target that is too slow for a full batch, or answers "not now" to the same one again and again, or ends the connection
while it gets it, as one does that is given too much, gets fewer entries at once (``width``); that is kept in the
journal, too.
"""

import time
from typing import TYPE_CHECKING, NamedTuple

from ..runtime.clock import monotonic
from ..targets.mail_answer import Unanswered, pause_after
from .verdict import SLOW_SECONDS, may_be_too_much, too_slow
from .width import Width

if TYPE_CHECKING:
    from ..journal.line import Line

UNANSWERED = "unanswered"
WIDTH = "width"
MOST_REFUSALS = 3


class Handover(NamedTuple):
    """``entries`` were handed over ``times`` times without an answer, the last time at ``at`` (unix seconds)."""

    times: int = 0
    entries: int = 0
    at: float = 0.0

    @classmethod
    def parse(cls, text: str | None) -> "Handover":
        """From the journal; no restraint if what is noted there is none."""
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


class Restraint:
    """What one :class:`Delivery` knows of them. ``narrows``: fewer entries at once make the target faster."""

    def __init__(self, *, narrows: bool) -> None:
        self._narrows = narrows
        self._width = Width()
        self._until = 0.0  # monotonic()
        self._handover = Handover()
        self._refusals = 0  # in a row, of a target that is there

    def begin(self, journal: "Line") -> None:
        """Before a first drain: what earlier runs have left."""
        self._width = Width.parse(journal.get_meta(WIDTH) if self._narrows else None)
        self._handover = Handover.parse(journal.get_meta(UNANSWERED))
        self._until = max(self._until, monotonic() + self._handover.left())

    def left(self) -> float:
        """Seconds for which the target is still to be left alone."""
        return self._until - monotonic()

    def of(self, wanted: int) -> int:
        """How many of ``wanted`` entries to offer: after a mail that was not answered, the same as in that."""
        most = self._width.of(wanted)
        return min(most, self._handover.entries) if self._handover.times else most

    def failed(self, error: BaseException, offered: int, seconds: float, journal: "Line") -> float | None:
        """``offered`` entries failed after ``seconds``. The pause that follows; None for the usual backoff."""
        after: float | None = getattr(error, "after", None)
        if isinstance(error, Unanswered):
            self._handover = Handover(self._handover.times + 1, offered, time.time())
            after = pause_after(self._handover.times)
        if after is not None:
            self._until = monotonic() + after
        self._refusals = self._refusals + 1 if may_be_too_much(error) else 0
        slow = too_slow(error, seconds)
        if self._narrows and offered > 1 and (slow or self._refusals >= MOST_REFUSALS):
            self._refusals = 0
            self._width = self._width.after_silence(offered, seconds if slow else max(seconds, SLOW_SECONDS))
            journal.set_meta(WIDTH, str(self._width))
        if isinstance(error, Unanswered):
            journal.set_meta(UNANSWERED, str(self._handover))  # last: a full disk must not make it a mail per retry
        return after

    def accepted(self, count: int, seconds: float, full: int, journal: "Line") -> None:
        """``count`` entries were accepted, and marked: what is noted here may fail. ``full``: the usual batch."""
        self._refusals = 0
        wider = self._width.after_acceptance(count, seconds, full)
        if self._width.most and not wider.most:
            journal.set_meta(WIDTH, str(wider))
        self._width = wider
        if self._handover.times:
            journal.set_meta(UNANSWERED, str(Handover()))
            self._handover = Handover()
