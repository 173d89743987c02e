"""The delivery loop, without a thread: the courier, the exit pass and the command line all run this.

Rules
-----
* Deliver, then mark: an entry is settled only after the target accepted it. A kill in between makes it arrive twice,
  with the same id; nothing makes it arrive never.
* If accepted entries cannot be marked (the disk is full), only the mark is tried again: nothing more is delivered.
* Before each delivery: is there time left, is the lease still ours, is the file still the journal.
* No lock of the journal, of the handler or of logging is held while the target is called, and what the target logs on
  this thread enters no journal.
* What to deliver next and what a failure means is decided in ``verdict``; this module carries it out.
"""

from __future__ import annotations

import enum
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from ..errors import Rejected, TryAgain
from ..journal.rows import Burial, Fenced, FilledIn, Undecodable
from ..runtime import retrying
from ..runtime.clock import monotonic
from ..runtime.fork import importing
from ..runtime.guard import delivering
from ..runtime.stderr import say
from . import drops, verdict
from .lease import DELIVERING, WAITING, Lease
from .marks import Did, Marks, Stalled
from .max_age import Ages
from .reasons import describe, named_in, traceback_of
from .restraint import Restraint
from .supply import Supply
from .verdict import Fault, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..journal.line import Line
    from ..journal.rows import Cursor
    from ..record.codec import Entry
    from ..runtime.bell import Bell
    from ..targets.contract import Target

COALESCE_SECONDS = 0.03  # the longest that a record in a flood waits for others to go with it


class Outcome(enum.Enum):
    """How a drain ended."""

    DONE = "done"  # nothing is pending
    REMAIN = "remain"  # entries remain: the time was up, or the target did not take them
    BUSY = "busy"  # another process holds the lease


class Delivery(Marks):
    """Delivers one journal to one target. One thread at a time.

    ``batch_size``: entries in one call at most. ``linger``: seconds to wait for a fuller batch. ``suspect_after``:
    failed attempts before the head of the line is suspected. ``retry_min``, ``retry_max``: seconds between attempts.
    ``on_settled``: called after each mark. ``check``: raises Fenced if the file is not the journal any more, and
    others deliver what it holds. ``bell``: rung to cut a pause short, set to end it. ``heed_pauses``: begin no drain
    with a try that the target asked to leave out.
    """

    def __init__(
        self,
        journal: Line,
        target: Target,
        lease: Lease,
        bell: Bell,
        *,
        batch_size: int | None = None,
        linger: float | None = 0.0,
        suspect_after: int = 8,
        retry_min: float = 1.0,
        retry_max: float = 60.0,
        max_age: float | None = None,
        on_settled: Callable[[int], None] | None = None,
        check: Callable[[], object] = lambda: None,
        heed_pauses: bool = True,
    ) -> None:
        super().__init__(journal, on_settled)
        self.target = target
        self.lease = lease
        self.bell = bell
        self.batch_size = 1 if target.record_at_a_time else batch_size or target.batch_size
        self.linger = target.linger if linger is None else linger
        self.suspect_after = suspect_after
        self.retry_min = retry_min
        self.retry_max = retry_max
        self._ages = None if max_age is None else Ages(max_age)
        self.check = check
        self.heed_pauses = heed_pauses
        self.on_pause: Callable[[float], None] | None = None  # told each pause after a failure, in seconds
        self.deadline: float | None = None  # monotonic(); another thread may set it at any time
        self.waits_for_lease = False  # another live process delivers, and we wait or have left it to that
        self.hurry = False  # no lingering, no coalescing: the process ends or somebody waits
        self._collecting = False  # the last batch was not full, and more are to come: see `linger`
        self._restraint = Restraint(narrows=target.narrows)
        self._rests = False
        self._supply = Supply()
        self._seconds = 0.0  # of the last call

    def look_on(self) -> None:
        """From now on; not in a forked child, which must not read yet."""
        if self._ages is not None:
            self._ages.sample(self.journal)

    def time_left(self) -> float:
        """Seconds until the deadline."""
        deadline = self.deadline
        return float("inf") if deadline is None else deadline - monotonic()

    # --- drain ---------------------------------------------------------------------------------------

    def drain(
        self, *, wait_for_lease: bool = False, take_over: bool = False, once: bool = False, patience: float = 0.0
    ) -> Outcome:
        """Deliver until nothing is pending, the deadline passes or the bell is set.

        ``once``: give up at the first pause instead of backing off. ``patience``: seconds for which the lease of
        another is tried again while something is pending. Raises Fenced, JournalError and OSError.
        """
        if take_over:
            self.lease.take_over()
            self.journal.raise_fence()
        elif not self._acquire(wait_for_lease, patience):
            return Outcome.BUSY
        outcome = self._drain_held(once=once)
        # Whoever ended while we held the lease has left the rest to us, perhaps after our last look.
        while outcome is Outcome.DONE and self.journal.has_pending() and self._acquire(False, 0.0):
            outcome = self._drain_held(once=once)
        return outcome

    def _drain_held(self, *, once: bool) -> Outcome:
        try:
            self._begin()
            return self._drain(once=once)
        finally:
            self.lease.release()

    def _acquire(self, wait: bool, patience: float) -> bool:
        """Take the lease, or leave what is pending to its holder.

        Only a thread that looks again after having let go of it may hold it, even for a moment: others leave
        because of it. So this thread decides, not one that watches it.
        """
        patient_until: float | None = None

        def give_up() -> bool:
            nonlocal patient_until
            if self.bell.is_set() or self.time_left() <= 0:
                return True
            if wait and not self.hurry:
                return False
            if patient_until is None:
                patient_until = monotonic() + patience
            return monotonic() >= patient_until or not self.journal.has_pending()

        # A free one is taken at once: nobody is to read that as "another process delivers".
        self.waits_for_lease = not self.lease.acquire(until=monotonic(), give_up=lambda: True)
        if self.waits_for_lease:
            self.waits_for_lease = not self.lease.acquire(until=None, give_up=give_up, pause=self.bell.wait)
        return not self.waits_for_lease

    def _begin(self) -> None:
        if self._cursor is None:  # cron's runs are to learn from each other
            self._restraint.begin(self.journal)
        self._take_up()
        self._supply.forget()
        self._rests = self.heed_pauses and self._restraint.left() > 0
        self._collecting = False

    def _drain(self, *, once: bool) -> Outcome:
        delivered = self.delivered
        while self.time_left() > 0 and not self.bell.is_set():
            try:
                did = self._step()
            except Stalled as stalled:
                if once:
                    return Outcome.REMAIN
                try:
                    did = self._back_off(stalled)
                except Stalled:
                    return Outcome.REMAIN
                if did is Did.PROGRESS and self.delivered > delivered:
                    drops.tell(self.journal)  # the outage is over
            told = (did is Did.NOTHING or self._collecting) and self.delivered > delivered and drops.tell(self.journal)
            if did is Did.NOTHING and not told:
                return Outcome.DONE
            if self._collecting and not self.hurry:
                break
        return Outcome.REMAIN if self.journal.has_pending() else Outcome.DONE

    def _back_off(self, stalled: Stalled) -> Did:
        first: list[Stalled] = [stalled]

        def attempt() -> Did:
            if first:
                raise first.pop()
            did = self._step()
            while did is Did.AGAIN and self.time_left() > 0:
                did = self._step()
            return did

        return retrying.backing_off(
            Stalled,
            first=self.retry_min,
            longest=self.retry_max,
            asked=lambda: self._asked,
            deadline=self.time_left,
            bell=self.bell,
            on_pause=self._pauses,
        )(attempt)

    def _pauses(self, seconds: float) -> None:
        self.lease.note(WAITING, time.time() + seconds)
        if self.on_pause is not None:
            self.on_pause(seconds)

    # --- one step ---------------------------------------------------------------------------------------

    def _step(self) -> Did:
        if not self.lease.held:
            raise Fenced
        self.check()
        if self._ages is not None:
            self._ages.notice_step(self.journal)
        if self._owed is not None:
            return self._mark(self._owed)
        if self._rests:
            self._rests, self._asked = False, self._restraint.left()
            known = self.last_error or self.journal.stats().last_error
            self.last_error = f"the target is left alone for {self._asked:.0f} s more, after {known}"
            raise Stalled(self.last_error, self._asked)
        cursor, state = self._cursor, self._state
        assert cursor is not None
        if state.phase is Phase.PROBE:
            return self._probe(cursor, state)
        most = verdict.batch_size(state, self._restraint.of(self.batch_size))
        entries = self._supply.take(self.journal, cursor.settled, most)
        if not entries:
            return Did.NOTHING
        if isinstance(entries, Undecodable):
            burial = Burial(entries.row.seq, entries.reason, None, 0, None)
            return self._mark(lambda: self._settle_cold(cursor, entries.row.seq, 0, [burial]))
        if self._ages is not None and self._ages.is_over(entries[0], self.journal):
            return self._bury_too_old(cursor, entries[0], self._ages.max_age)
        return self._offer(cursor, state, entries)

    def _call(self, entries: list[Entry]) -> BaseException | None:
        """Hand ``entries`` to the target; what it raised, or None."""
        began = monotonic()
        self.lease.note(DELIVERING, time.time())
        if self.delivered:  # the first call may import, connect and fail
            self.target.meanwhile = self._supply.beyond(self.journal, entries, self._restraint.of(self.batch_size))
        try:
            # Until something was accepted, a client library may import what it has not needed before.
            with delivering(), nullcontext() if self.delivered else importing():
                self.target.deliver(entries)
        except BaseException as error:  # a target that calls sys.exit(), say, must not end the courier
            if not verdict.is_of_the_target(error):
                raise
            self.last_error = describe(error)
            return error
        finally:
            self.target.meanwhile = None
            self._seconds = monotonic() - began
        return None

    def _offer(self, cursor: Cursor, state: verdict.State, entries: list[Entry]) -> Did:
        error = self._call(entries)
        if error is None:
            return self._accepted(cursor, state, entries)
        fault = verdict.classify(error)
        if isinstance(error, Rejected):
            return self._refused(cursor, state, entries, error)
        if isinstance(error, TryAgain) and error.accepted > 0:
            return self._accepted_in_part(cursor, entries, error)
        return self._failed(cursor, state, entries, error, fault)

    def _accepted(self, cursor: Cursor, state: verdict.State, entries: list[Entry]) -> Did:
        following = verdict.after_acceptance(state, len(entries))
        last = entries[-1].seq
        cold = state.attempts or state.phase is not Phase.LINE
        full = self._supply.is_whole(entries, self._restraint.of(self.batch_size))

        def mark() -> Did:
            count = len(entries)
            try:
                moved = (
                    self.journal.mark(cursor, upto=last, delivered=count)
                    if cold
                    else self.journal.settle(cursor, last, count)
                )
            except FilledIn:  # what came in before them is still to be delivered
                ahead = [entry.seq for entry in entries]
                moved = self.journal.mark(cursor, upto=cursor.settled, delivered=count, ahead=ahead)
            return self._moved(moved, following.state, count)

        self.journal.store.turns.let_callers()
        did = self._mark(mark)
        self._restraint.accepted(len(entries), self._seconds, self.batch_size, self.journal)
        if not full and not self.hurry and following.state.phase is Phase.LINE:
            if self.linger:
                self._collecting = True  # else a steady flood is one small batch after the other: a mail every 50 ms
            else:
                # Callers keep the GIL and the lock for a moment; the next read finds a fuller batch.
                self.bell.wait(COALESCE_SECONDS)
        return did

    def _accepted_in_part(self, cursor: Cursor, entries: list[Entry], error: TryAgain) -> Did:
        taken = entries[: error.accepted]
        did = self._mark(lambda: self._settle_cold(cursor, taken[-1].seq, len(taken), []))
        if error.after is None:
            return did  # it takes entries: no reason to wait. If it takes no more, the next call says so
        self._asked = self._restraint.failed(error, len(entries), self._seconds, self.journal)
        raise Stalled(str(error), error.after)

    # --- refusals and failures ------------------------------------------------------------------------------

    def _refused(self, cursor: Cursor, state: verdict.State, entries: list[Entry], error: Rejected) -> Did:
        """The target refused entries for good: bury those; of several unnamed ones, find the culprit by halving."""
        named = named_in(error, entries)
        if not named and len(entries) > 1:
            self._state = verdict.narrowed(state, len(entries))
            return Did.AGAIN
        attempts = cursor.attempts + 1
        burials = [
            Burial(e.seq, describe(error), traceback_of(error), attempts, cursor.failed_at or time.time())
            for e in (named or entries)
        ]
        accepted = len(entries) - len(burials)
        return self._mark(lambda: self._settle_cold(cursor, entries[-1].seq, accepted, burials))

    def _failed(
        self, cursor: Cursor, state: verdict.State, entries: list[Entry], error: BaseException, fault: Fault
    ) -> Did:
        others = True
        if fault is Fault.FAILURE and state.attempts + 1 >= self.suspect_after:
            others = bool(self.journal.read(cursor.settled, 1, beyond=1))
        following = verdict.after_failure(state, fault, len(entries), self.suspect_after, others=others)
        if following.bury_head:
            burial = Burial(entries[0].seq, describe(error), traceback_of(error), cursor.attempts + 1, cursor.failed_at)
            return self._mark(lambda: self._settle_cold(cursor, entries[0].seq, 0, [burial], following.state))
        counts = following.state.attempts > state.attempts
        self._cursor = self.journal.fail(cursor, describe(error), counts=counts, probe=following.state.probe)
        self._state = following.state
        self._asked = self._restraint.failed(error, len(entries), self._seconds, self.journal)
        if not following.pause:
            return Did.AGAIN
        self._rebuild()
        raise Stalled(describe(error), self._asked)

    def _rebuild(self) -> None:
        try:
            with delivering():
                self.target.rebuild()
        except BaseException as error:  # the target's own code must not end the courier
            if not verdict.is_of_the_target(error):
                raise
            self.last_error = describe(error)
            say(f"journal {self.journal.path}: building the target anew: {self.last_error}")

    def _probe(self, cursor: Cursor, state: verdict.State) -> Did:
        rows = self.journal.read(cursor.settled, 1, beyond=verdict.probe_offset(state))
        newest = self.journal.newest_pending(cursor.settled)
        row = rows[0] if rows else newest
        head = self.journal.read(cursor.settled, 1)
        if row is None or newest is None or not head or row.seq == head[0].seq:
            self._state = verdict.State(Phase.HEAD, state.attempts)
            raise Stalled("the only pending entry is not accepted")
        entry = self.journal.decode(row)
        if isinstance(entry, Undecodable):
            burial = Burial(row.seq, entry.reason, None, 0, None)
            return self._mark(lambda: self._settle_ahead(cursor, state, [], [burial]))
        error = self._call([entry])
        if error is None:
            following = verdict.after_acceptance(state, 1).state
            return self._mark(lambda: self._settle_ahead(cursor, following, [entry.seq], []))
        if isinstance(error, Rejected):  # an answer: the target is up
            burial = Burial(row.seq, describe(error), traceback_of(error), 1, time.time())
            following = verdict.after_acceptance(state, 1).state
            return self._mark(lambda: self._settle_ahead(cursor, following, [], [burial]))
        fault = verdict.classify(error)
        step = verdict.after_failure(state, fault, 1, self.suspect_after, newest=row.seq == newest.seq)
        self._cursor = self.journal.fail(cursor, describe(error), counts=False, probe=step.state.probe)
        self._state = step.state
        self._asked = self._restraint.failed(error, 1, self._seconds, self.journal)
        raise Stalled(describe(error), self._asked)

    def _bury_too_old(self, cursor: Cursor, entry: Entry, max_age: float) -> Did:
        reason = f"older than max_age ({max_age:g} s); last error: {self.last_error or 'none'}"
        burial = Burial(entry.seq, reason, None, cursor.attempts, cursor.failed_at)
        return self._mark(lambda: self._settle_cold(cursor, entry.seq, 0, [burial]))
