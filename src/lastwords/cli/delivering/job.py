"""A journal to be delivered from: by which way, and what becomes of it.

Before anything is opened for writing the journal is looked at: one that is damaged, foreign, missing or of a newer
format is reported and not touched, and one with nothing pending needs no work.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lastwords.delivery.loop import Delivery, Outcome
from lastwords.errors import JournalDamaged, JournalError
from lastwords.journal import ownership
from lastwords.runtime.bell import Bell
from lastwords.upkeep import damaged_file

from ...journal import readonly
from ...journal.explain import explained
from ...runtime.clock import monotonic
from .. import output

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from lastwords.delivery.lease import Holder
    from lastwords.journal.line import Line
    from lastwords.targets.contract import Target


@dataclass(slots=True)
class Way:
    """How entries leave a journal: the target, the knobs of Delivery, and how long delivered entries are kept."""

    target: Target
    knobs: dict[str, Any] = field(default_factory=dict)
    keep_delivered: float | None = None  # None: what the journal says
    journal: Line | None = None  # opened already, by the DurableHandler of a configuration
    of_owner: bool = False  # the target is the owner's choice, and not that of the user who typed the command
    own: bool = False  # it is the way that the journal's own service uses


@dataclass(slots=True)
class Job:
    """One journal, and what becomes of it."""

    path: str
    way: Way | None = None
    pending: int = 0  # at the first look
    destination: str | None = None  # where the journal's service delivers, as it says itself
    limit: int | None = None
    delivered: int = 0
    buried: int = 0
    remaining: int | None = None
    refused: int = 0  # copies that the target refused for good
    damaged: int = 0  # rows that did not decode, or a file that was set aside
    salvaged_as: str | None = None
    outcome: Outcome | None = None
    error: JournalError | None = None
    notes: list[str] = field(default_factory=list)
    last_error: str | None = None
    holder: Holder | None = None  # of the lease, when it was wanted
    seconds: float = 0.0
    began: float | None = None  # monotonic, while somebody works on it
    bell: Bell = field(default_factory=Bell)
    stopping: bool = False
    delivery: Delivery | None = None
    on_pause: Callable[[Job, str | None, float], None] | None = None  # told of a failure: why, seconds to the next try

    def pauses(self, why: str | None, seconds: float) -> None:
        """An attempt failed, and the next one is due in ``seconds``."""
        if self.on_pause is not None:
            self.on_pause(self, why, seconds)

    def as_owner(self) -> AbstractContextManager[None]:
        """Root is the journal's owner inside."""
        return ownership.as_owner(self.path, targets_too=self.way is not None and self.way.of_owner)

    def forgive_damage(self) -> bool:
        """Go on with a journal that the first look found damaged: the delivery sets it aside. False if it was not."""
        if not isinstance(self.error, JournalDamaged):
            return False
        self.error = None
        return True

    def stop(self) -> None:
        """End after the mark that is due. From another thread."""
        self.stopping = True
        self.bell.set()

    @property
    def done(self) -> int:
        """Entries dealt with so far; another thread may look."""
        delivery = self.delivery
        return self.delivered if delivery is None else delivery.delivered + delivery.buried

    def begin(self) -> None:
        """The clock runs."""
        self.began = monotonic()

    def end(self) -> None:
        """The clock stops."""
        self.seconds, self.began = self.elapsed, None

    @property
    def elapsed(self) -> float:
        """Seconds of work on it, also while that goes on: a target that hangs is left behind in the midst of it."""
        return self.seconds + (0.0 if self.began is None else monotonic() - self.began)

    @property
    def exit_code(self) -> int:
        """What this journal contributes to the exit code."""
        if self.error is not None:
            return self.error.exit_code
        if self.buried or self.refused or self.damaged:
            return 65
        if self.outcome is Outcome.REMAIN or self.in_the_way:
            return 75
        return 0

    @property
    def in_the_way(self) -> str:
        """Why the holder of the lease will not deliver by itself: it is stopped, or its target hangs. Else empty."""
        holder = self.holder
        if holder is not None and holder.stopped:
            return f"is stopped: `kill -CONT {holder.pid}` lets it go on, `flush --takeover` delivers without it"
        if holder is not None and holder.hung and holder.since is not None:
            ago = output.age(time.time() - holder.since)
            return f"has waited for its target for {ago}: `flush --takeover` delivers without it"
        return ""

    @property
    def is_left(self) -> bool:
        """Entries are pending, and another process has the lease."""
        return self.outcome is Outcome.BUSY and bool(self.remaining)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "journal": self.path,
            "outcome": "error" if self.error else self.outcome.value if self.outcome else None,
            "delivered": self.delivered,
            "buried": self.buried,
            "refused": self.refused,
            "damaged": self.damaged,
            "remaining": self.remaining,
            "seconds": round(self.elapsed, 3),
            "error": str(self.error) if self.error else None,
            "last_error": self.last_error,
            "lease_pid": self.holder.pid if self.holder else None,
            "exit_code": self.exit_code,
        }


def inspect(path: str) -> tuple[Job, bool]:
    """Look at a journal; whether there is anything to do is the second value (delivering, or only pruning)."""
    job = Job(path)
    try:
        with explained(path), readonly.look(path) as journal:
            job.pending = job.remaining = journal.stats().pending
            job.destination = journal.get_meta("destination")
            prunable = journal.oldest_settled()
            keep = kept(journal)
    except JournalError as error:
        job.error = error
        return job, isinstance(error, JournalDamaged) and damaged_file.is_ours(path)  # what can be read of it
    if not job.pending:
        job.outcome = Outcome.DONE
    return job, bool(job.pending) or (prunable is not None and prunable < time.time() - keep)


def kept(journal: Line) -> float:
    """How long the journal's own handler keeps delivered entries, in seconds."""
    try:
        return max(0.0, float(journal.get_meta("keep_delivered") or 0.0))
    except ValueError:
        return 0.0
