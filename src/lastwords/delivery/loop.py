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
import logging
import sqlite3
import time
import traceback
from typing import TYPE_CHECKING

from ..errors import JournalError, Rejected, TryAgain
from ..journal.rows import Burial, Fenced, Undecodable
from ..record.codec import Entry, encode
from ..runtime import retrying
from ..runtime.guard import delivering
from ..runtime.stderr import say
from . import verdict
from .verdict import Fault, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..journal.journal import Journal
    from ..journal.rows import Cursor, Drop, StoredRow
    from ..runtime.bell import Bell
    from ..targets.contract import Target
    from .lease import Lease

COALESCE_SECONDS = 0.01


class Outcome(enum.Enum):
    """How a drain ended."""

    DONE = "done"  # nothing is pending
    REMAIN = "remain"  # entries remain: the time was up, or the target did not take them
    BUSY = "busy"  # another process holds the lease


class Stalled(Exception):  # noqa: N818 - a state of the line
    """A pause is due. ``after``: seconds the target asked for."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        self.after = after
        super().__init__(reason)


class _Did(enum.Enum):
    PROGRESS = 1  # something was settled or buried
    AGAIN = 2  # nothing was, but the next try is due at once
    NOTHING = 3  # nothing is pending


class Delivery:
    """Delivers one journal to one target. One thread at a time.

    ``batch_size``: entries in one call at most. ``linger``: seconds to wait for a fuller batch. ``suspect_after``:
    failed attempts before the head of the line is suspected. ``retry_min``, ``retry_max``: seconds between attempts.
    ``on_settled``: called after each mark. ``check``: raises Fenced if the file is not the journal any more, and
    others deliver what it holds. ``bell``: rung to cut a pause short, set to end it.
    """

    def __init__(
        self,
        journal: Journal,
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
    ) -> None:
        self.journal = journal
        self.target = target
        self.lease = lease
        self.bell = bell
        self.batch_size = 1 if target.record_at_a_time else batch_size or target.batch_size
        self.linger = target.linger if linger is None else linger
        self.suspect_after = suspect_after
        self.retry_min = retry_min
        self.retry_max = retry_max
        self.max_age = max_age
        self.on_settled = on_settled
        self.check = check
        self.deadline: float | None = None  # time.monotonic(); another thread may set it at any time
        self.waits_for_lease = False  # another live process delivers
        self.hurry = False  # no lingering, no coalescing: the process ends or somebody waits
        self.buried = 0  # entries this object buried
        self.delivered = 0
        self.last_error: str | None = None
        self._cursor: Cursor | None = None
        self._state = verdict.State()
        self._owed: Callable[[], _Did] | None = None
        self._asked: float | None = None
        self._collecting = False  # the last batch was not full, and more are to come: see `linger`

    @property
    def settled(self) -> int:
        """The cursor, as this object last saw it."""
        return 0 if self._cursor is None else self._cursor.settled

    def time_left(self) -> float:
        """Seconds until the deadline."""
        deadline = self.deadline
        return float("inf") if deadline is None else deadline - time.monotonic()

    # --- drain ---------------------------------------------------------------------------------------

    def drain(self, *, wait_for_lease: bool = False, take_over: bool = False, once: bool = False) -> Outcome:
        """Deliver until nothing is pending, the deadline passes or the bell is set.

        ``once``: give up at the first pause instead of backing off. Raises Fenced and what SQLite raises.
        """
        if take_over:
            self.lease.take_over()
            self.journal.raise_fence()
        elif not self._acquire(wait_for_lease):
            return Outcome.BUSY
        try:
            self._begin()
            return self._drain(once=once)
        finally:
            self.lease.release()

    def _acquire(self, wait: bool) -> bool:
        def give_up() -> bool:
            return self.bell.is_set() or self.time_left() <= 0 or not wait or self.hurry

        # A free one is taken at once: whoever waits for our end must not read that as "another process delivers".
        if self.lease.acquire(until=time.monotonic(), give_up=lambda: True):
            return True
        self.waits_for_lease = True
        try:
            return self.lease.acquire(until=self.deadline, give_up=give_up)
        finally:
            self.waits_for_lease = False

    def _begin(self) -> None:
        before, cursor = self._cursor, self.journal.cursor()
        self._cursor, self._state = cursor, verdict.start(cursor.attempts, cursor.probe)
        if before is None or (before.fence, before.settled) != (cursor.fence, cursor.settled):
            self._owed = None  # else what was accepted in the last drain is still to be marked
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
                if did is _Did.PROGRESS and self.delivered > delivered:
                    self._told_drops()  # the outage is over
            told = (did is _Did.NOTHING or self._collecting) and self.delivered > delivered and self._told_drops()
            if did is _Did.NOTHING and not told:
                return Outcome.DONE
            if self._collecting and not self.hurry:
                break
        return Outcome.REMAIN if self.journal.has_pending() else Outcome.DONE

    def _back_off(self, stalled: Stalled) -> _Did:
        first: list[Stalled] = [stalled]

        def attempt() -> _Did:
            if first:
                raise first.pop()
            did = self._step()
            while did is _Did.AGAIN and self.time_left() > 0:
                did = self._step()
            return did

        return retrying.backing_off(
            Stalled,
            first=self.retry_min,
            longest=self.retry_max,
            asked=lambda: self._asked,
            deadline=self.time_left,
            bell=self.bell,
        )(attempt)

    # --- one step ---------------------------------------------------------------------------------------

    def _step(self) -> _Did:
        if not self.lease.held:
            raise Fenced
        self.check()
        if self._owed is not None:
            return self._mark(self._owed)
        cursor, state = self._cursor, self._state
        assert cursor is not None
        if state.phase is Phase.PROBE:
            return self._probe(cursor, state)
        rows = self.journal.read(cursor.settled, verdict.batch_size(state, self.batch_size))
        if not rows:
            return _Did.NOTHING
        entries = self._decodable(rows)
        if isinstance(entries, Undecodable):
            burial = Burial(entries.row.seq, entries.reason, None, 0, None)
            return self._mark(lambda: self._settle_cold(cursor, entries.row.seq, 0, [burial]))
        if self.max_age is not None and time.time() - entries[0].created > self.max_age:
            return self._bury_too_old(cursor, entries[0])
        return self._offer(cursor, state, entries)

    def _decodable(self, rows: Sequence[StoredRow]) -> list[Entry] | Undecodable:
        """The entries up to the first row that does not decode; that row itself if it is the first."""
        entries: list[Entry] = []
        for row in rows:
            entry = self.journal.decode(row)
            if isinstance(entry, Undecodable):
                return entries or entry
            entries.append(entry)
        return entries

    def _call(self, entries: list[Entry]) -> BaseException | None:
        """Hand ``entries`` to the target; what it raised, or None."""
        try:
            with delivering():
                self.target.deliver(entries)
        except (Exception, SystemExit) as error:  # a target that calls sys.exit() must not end the courier
            self.last_error = describe(error)
            return error
        return None

    def _offer(self, cursor: Cursor, state: verdict.State, entries: list[Entry]) -> _Did:
        error = self._call(entries)
        if error is None:
            return self._accepted(cursor, state, entries)
        fault = verdict.classify(error)
        if isinstance(error, Rejected):
            return self._refused(cursor, state, entries, error)
        if isinstance(error, TryAgain) and error.accepted > 0:
            return self._accepted_in_part(cursor, entries, error)
        return self._failed(cursor, state, entries, error, fault)

    def _accepted(self, cursor: Cursor, state: verdict.State, entries: list[Entry]) -> _Did:
        following = verdict.after_acceptance(state, len(entries))
        last = entries[-1].seq
        cold = state.attempts or state.phase is not Phase.LINE

        def mark() -> _Did:
            count = len(entries)
            moved = (
                self.journal.mark(cursor, upto=last, delivered=count)
                if cold
                else self.journal.settle(cursor, last, count)
            )
            return self._moved(moved, following.state, count)

        did = self._mark(mark)
        if len(entries) < self.batch_size and not self.hurry and following.state.phase is Phase.LINE:
            if self.linger:
                self._collecting = True  # else a steady flood is one small batch after the other: a mail every 50 ms
            else:
                # Callers keep the GIL and the lock for a moment; the next read finds a fuller batch.
                self.bell.wait(COALESCE_SECONDS)
        return did

    def _accepted_in_part(self, cursor: Cursor, entries: list[Entry], error: TryAgain) -> _Did:
        taken = entries[: error.accepted]
        did = self._mark(lambda: self._settle_cold(cursor, taken[-1].seq, len(taken), []))
        if error.after is None:
            return did  # it takes entries: no reason to wait. If it takes no more, the next call says so
        self._asked = error.after
        raise Stalled(str(error), error.after)

    # --- refusals and failures ------------------------------------------------------------------------------

    def _refused(self, cursor: Cursor, state: verdict.State, entries: list[Entry], error: Rejected) -> _Did:
        """The target refused entries for good: bury those; of several unnamed ones, find the culprit by halving."""
        named = _named(entries, error)
        if not named and len(entries) > 1:
            self._state = verdict.narrowed(state, len(entries))
            return _Did.AGAIN
        attempts = cursor.attempts + 1
        burials = [
            Burial(e.seq, describe(error), traceback_of(error), attempts, cursor.failed_at or time.time())
            for e in (named or entries)
        ]
        accepted = len(entries) - len(burials)
        return self._mark(lambda: self._settle_cold(cursor, entries[-1].seq, accepted, burials))

    def _failed(
        self, cursor: Cursor, state: verdict.State, entries: list[Entry], error: BaseException, fault: Fault
    ) -> _Did:
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
        self._asked = getattr(error, "after", None)
        if not following.pause:
            return _Did.AGAIN
        self._rebuild()
        raise Stalled(describe(error), self._asked)

    def _rebuild(self) -> None:
        try:
            with delivering():
                self.target.rebuild()
        except (Exception, SystemExit) as error:  # the target's own code must not end the courier
            self.last_error = describe(error)
            say(f"journal {self.journal.path}: building the target anew: {self.last_error}")

    def _probe(self, cursor: Cursor, state: verdict.State) -> _Did:
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
        self._asked = getattr(error, "after", None)
        raise Stalled(describe(error), self._asked)

    def _bury_too_old(self, cursor: Cursor, entry: Entry) -> _Did:
        reason = f"older than max_age ({self.max_age:g} s); last error: {self.last_error or 'none'}"
        burial = Burial(entry.seq, reason, None, cursor.attempts, cursor.failed_at)
        return self._mark(lambda: self._settle_cold(cursor, entry.seq, 0, [burial]))

    # --- marks ------------------------------------------------------------------------------------------------

    def _mark(self, mark: Callable[[], _Did]) -> _Did:
        """Do it, or owe it: what was accepted must be marked before anything else is delivered."""
        self._owed = mark
        try:
            did = mark()
        except (sqlite3.Error, JournalError, OSError) as error:
            self._asked = None
            self.last_error = f"accepted entries cannot be marked: {error}"
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
    ) -> _Did:
        state = state or verdict.State()
        moved = self.journal.mark(
            cursor, upto=upto, delivered=delivered, buried=burials, attempts=state.attempts, probe=state.probe
        )
        self.buried += len(burials)
        return self._moved(moved, state, delivered)

    def _settle_ahead(
        self, cursor: Cursor, state: verdict.State, ahead: Sequence[int], burials: Sequence[Burial]
    ) -> _Did:
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

    def _moved(self, cursor: Cursor, state: verdict.State, delivered: int) -> _Did:
        self._cursor = cursor
        self._state = state
        self.delivered += delivered
        self._asked = None
        if self.on_settled is not None:
            self.on_settled(delivered)
        return _Did.PROGRESS

    def _told_drops(self) -> bool:
        """The target accepts: put one WARNING record on the line that says what was dropped; False if nothing was."""
        drops = self.journal.untold_drops()
        if not drops:
            return False
        levels = ", ".join(f"{logging.getLevelName(drop.level)} {drop.records:,}" for drop in drops)
        first, last = (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) for at in _span(drops))
        text = (
            f"lastwords dropped {sum(drop.records for drop in drops):,} records ({levels}) between {first} and {last}:"
            f" the journal {self.journal.path} had no room for them"
        )
        made = logging.LogRecord("lastwords", logging.WARNING, __file__, 0, text, (), None, "drops")
        self.journal.tell_drops(encode(made), drops)
        return True


def _span(drops: Sequence[Drop]) -> tuple[float, float]:
    return min(drop.first_at for drop in drops), max(drop.last_at for drop in drops)


def _named(entries: list[Entry], error: Rejected) -> list[Entry]:
    if not error.entries:
        return []
    ids = {item.id if isinstance(item, Entry) else str(item) for item in error.entries}
    return [entry for entry in entries if entry.id in ids]


def describe(error: BaseException) -> str:
    """An exception in one line, for people."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def traceback_of(error: BaseException) -> str:
    """The text of an exception's traceback, bounded."""
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= 20_000 else text[:10_000] + "\n[...]\n" + text[-10_000:]
