"""How many entries a slow target gets at once: a pure calculation, without a clock, a disk or a thread.

The fault. A receiver that needs longer for a full batch than its client waits never gets to say that it took it. It
gets the same hundred entries again and again, and stores them each time.

The rule. A batch that got no answer in time is offered again with a quarter of its entries. One that was accepted says
how long an entry takes: the next may have as many as are likely to be answered in half of the time after which the
client gave up, at most twice as many as before. So the width settles below the limit without trying it out, and comes
back to full batches when the receiver is quick again. The journal keeps the width for the next run.
"""

from typing import NamedTuple

NARROWER = 4
ROOM = 0.5  # of the patience of the client


class Width(NamedTuple):
    """At most ``most`` entries (0: no limit); ``patience``: seconds after which the last call was given up."""

    most: int = 0
    patience: float = 0.0

    @classmethod
    def parse(cls, text: str | None) -> "Width":
        """From what :meth:`__str__` gave; anything else is no limit."""
        most, _, patience = (text or "").partition(" ")
        try:
            return cls(max(0, int(most)), max(0.0, float(patience)))
        except ValueError:
            return cls()

    def __str__(self) -> str:
        return f"{self.most} {self.patience:.3f}"

    def of(self, wanted: int) -> int:
        """How many of ``wanted`` entries to offer."""
        return min(wanted, self.most) if self.most else wanted

    def after_silence(self, offered: int, seconds: float) -> "Width":
        """``offered`` entries got no answer for so long."""
        return Width(max(1, offered // NARROWER), seconds)

    def after_acceptance(self, accepted: int, seconds: float, full: int) -> "Width":
        """``accepted`` entries took so long; ``full``: the size of a batch without a limit."""
        if not self.most or accepted < self.most:
            return self
        likely = int(accepted * ROOM * self.patience / seconds) if seconds > 0 else full
        most = max(self.most, min(2 * self.most, likely))
        return Width() if most >= full else self._replace(most=most)
