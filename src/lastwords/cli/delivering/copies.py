"""Delivering copies: chosen entries go to a target, and the cursor stays where it is.

Nothing is marked, so nothing is buried either: an entry that the target refuses is counted and left out, one that
keeps failing is given three tries. A target that is down is waited for, with the courier's own backoff.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastwords.delivery import verdict
from lastwords.delivery.loop import Outcome
from lastwords.delivery.marks import Stalled
from lastwords.delivery.reasons import describe
from lastwords.delivery.verdict import Fault
from lastwords.errors import JournalError, Rejected, TryAgain
from lastwords.record.codec import Entry
from lastwords.runtime import retrying
from lastwords.runtime.guard import delivering

from ...journal import readonly
from ...journal.explain import explained
from ...runtime.clock import monotonic
from .. import entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..entries import Filter
    from .job import Job

TRIES = 3  # of an entry that fails for a reason of its own
BATCH = 100


class Copies:
    """Delivers copies of the entries of one job. Used by one thread; others may look at ``job``."""

    def __init__(self, job: Job, deadline: float | None) -> None:
        assert job.way is not None
        self._job = job
        self._target = job.way.target
        self._deadline = deadline
        self._asked: float | None = None
        self._retry = (job.way.knobs.get("retry_min", 1.0), job.way.knobs.get("retry_max", 60.0))
        size = int(job.way.knobs.get("batch_size") or BATCH)
        self._size = 1 if self._target.record_at_a_time else size

    def _left(self) -> float:
        return float("inf") if self._deadline is None else self._deadline - monotonic()

    def deliver(self, want: Filter) -> None:
        """All that ``want`` chooses, up to the job's limit. What happens is written into the job."""
        job = self._job
        job.begin()
        try:
            with job.as_owner(), explained(job.path), readonly.look(job.path) as journal:
                for batch in self._batches(entries.chosen(journal, want, limit=job.limit)):
                    self._offer(batch)
        except Stalled as stalled:
            job.outcome, job.last_error = Outcome.REMAIN, job.last_error or str(stalled)
        except JournalError as error:
            job.error = error
        else:
            job.outcome = Outcome.DONE
        finally:
            job.end()

    def _batches(self, found: Iterator[object]) -> Iterator[list[Entry]]:
        batch: list[Entry] = []
        for item in found:
            if not isinstance(item, Entry):
                self._job.damaged += 1
                continue
            batch.append(item)
            if len(batch) >= self._size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _offer(self, batch: list[Entry]) -> None:
        """Until the target has answered for every entry of ``batch``. Raises Stalled when the time is up."""
        waiting = list(batch)
        failures = 0

        def attempt() -> None:
            nonlocal failures
            while waiting:
                if self._left() <= 0 or self._job.bell.is_set():
                    raise Stalled("the time is up")
                error = self._call(waiting)
                if error is None or isinstance(error, Rejected):
                    self._answered(waiting, error)
                    return
                self._job.last_error = describe(error)
                if isinstance(error, TryAgain) and error.accepted > 0:
                    self._job.delivered += len(waiting[: error.accepted])
                    del waiting[: error.accepted]
                elif verdict.classify(error) is Fault.FAILURE:
                    failures += 1
                    if self._passed_by(waiting, failures):
                        return
                self._asked = getattr(error, "after", None)
                raise Stalled(describe(error), self._asked)

        try:
            attempt()
        except Stalled:
            first, longest = self._retry
            retrying.backing_off(
                Stalled,
                first=first,
                longest=longest,
                asked=lambda: self._asked,
                deadline=self._left,
                bell=self._job.bell,
                on_pause=lambda seconds: self._job.pauses(self._job.last_error, seconds),
            )(attempt)

    def _passed_by(self, waiting: list[Entry], failures: int) -> bool:
        """A failure that may be an entry's own: of several, find it; one alone is given up after TRIES."""
        if len(waiting) > 1:
            for entry in waiting:
                self._offer([entry])
            return True
        if failures >= TRIES:
            self._job.refused += 1
            return True
        return False

    def _answered(self, waiting: list[Entry], error: Rejected | None) -> None:
        if error is None:
            self._job.delivered += len(waiting)
            return
        self._job.last_error = describe(error)
        named = {item.id if isinstance(item, Entry) else str(item) for item in error.entries or ()}
        refused = sum(entry.id in named for entry in waiting)
        if not refused and len(waiting) > 1:  # one of them, the target does not say which
            half = len(waiting) // 2
            self._offer(waiting[:half])
            self._offer(waiting[half:])
            return
        self._job.refused += refused or 1
        self._job.delivered += len(waiting) - (refused or 1)

    def _call(self, batch: list[Entry]) -> BaseException | None:
        try:
            with delivering():
                self._target.deliver(batch)
        except (Exception, SystemExit) as error:  # a target that calls sys.exit() must not end us
            return error
        return None
