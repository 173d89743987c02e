"""``max_age``: which entries have waited too long, by a clock that may step.

An entry's age is the time since it was logged. Both are readings of the wall clock, and that clock may have been set
in between: by NTP after the start of a machine without a battery, by hand, by a virtual machine that was restored. So
it is compared with one that nobody sets (it counts since the boot, sleep included), at each look and, through the
journal, from run to run. If it stepped, what was pending then ages anew: late rather than wrongly buried. So does
what was requeued by hand: somebody wants it delivered now. And what came while this process looked on is not older
than that, though it was logged before the clock was set right.

``meta`` holds ``clock`` (boot, seconds since it, wall clock) and ``aging_from`` (up to that seq, from that time on).
"""

import time
from typing import TYPE_CHECKING, NamedTuple

from ..journal import aging, files

if TYPE_CHECKING:
    from ..journal.line import Line
    from ..record.codec import Entry

TOLERANCE_SECONDS = 2.0
SAMPLES = 8  # in ``max_age`` seconds
SLEW = 0.001  # a clock that is being corrected without a step runs off by half of that at most
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(NamedTuple):
    """A reading of both clocks. ``boot``: what ``steady`` counts from."""

    boot: str
    steady: float
    wall: float

    @classmethod
    def read(cls) -> "Clock":
        """Now."""
        return cls(files.boot_id(), time.clock_gettime(_STEADY), time.time())

    @classmethod
    def parse(cls, text: str | None) -> "Clock | None":
        """From the journal; None if what is noted there is no reading."""
        boot, _, rest = (text or "").partition(" ")
        steady, _, wall = rest.partition(" ")
        try:
            return cls(boot, float(steady), float(wall))
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.boot} {self.steady:.3f} {self.wall:.3f}"

    def stepped(self, before: "Clock") -> bool:
        """True if the wall clock was set between ``before`` and this reading."""
        passed = self.wall - before.wall
        if self.boot != before.boot:
            return passed < -TOLERANCE_SECONDS  # how long the machine was off, only the wall clock knows
        steady = self.steady - before.steady
        return abs(passed - steady) > TOLERANCE_SECONDS + SLEW * steady


class Ages:
    """Which entries of a journal waited longer than ``max_age`` seconds."""

    def __init__(self, max_age: float) -> None:
        self.max_age = max_age
        self._clock = Clock.read()  # before anything is logged that this process delivers
        self._compared = False  # with what an earlier run left in the journal
        self._samples: list[tuple[float, int]] = []  # when the steady clock said so, this was the newest seq

    def sample(self, journal: "Line") -> None:
        """Note what is there: what comes later is younger, whatever time it was logged at."""
        steady = time.clock_gettime(_STEADY)
        if not self._samples or steady - self._samples[-1][0] > self.max_age / SAMPLES:
            self._samples = [*self._samples[-2 * SAMPLES :], (steady, journal.newest_seq())]

    def notice_step(self, journal: "Line") -> None:
        """Notice a step of the clock. To be called before :meth:`is_over`, and while nothing is delivered, too."""
        now, before = Clock.read(), self._clock
        stepped = now.stepped(before)
        if not self._compared:
            noted = Clock.parse(journal.get_meta("clock"))
            stepped = stepped or (noted is not None and now.stepped(noted))
            journal.set_meta("clock", str(now))
        if stepped:
            aging.age_anew(journal.store, now.wall)
            journal.set_meta("clock", str(now))
        self._clock, self._compared = now, True
        self.sample(journal)

    def is_over(self, entry: "Entry", journal: "Line") -> bool:
        """True if ``entry`` is to be buried."""
        now = self._clock.wall
        if now - entry.created <= self.max_age or self._came_since(entry.seq) <= self.max_age:
            return False
        seq, since = aging.aging_from(journal.store)
        return entry.seq > seq or now - since > self.max_age

    def _came_since(self, seq: int) -> float:
        """The entry at ``seq`` came within the last so many seconds; infinity for what was there before us."""
        passed = [self._clock.steady - steady for steady, newest in self._samples if newest < seq]
        return min(passed, default=float("inf"))
