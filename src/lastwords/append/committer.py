"""Append: a record is in the journal when the call that logged it returns.

Theory of operation
-------------------
A caller that finds no leader becomes it, takes the store's lock and commits its row. One that finds a leader adds a
ticket to the queue ``_arrived`` and sleeps until it is done. The leader writes all tickets that have queued up in ONE
autocommit INSERT, marks them done and wakes their callers. When it leaves, it wakes the first caller that still waits,
which then leads; a caller that nobody wakes takes the lead by itself after a while. There is no transaction for an
interrupt to leave open.

Durability. The statement commits with ``synchronous=FULL`` if any of its records is at or above ``sync_level``: SQLite
then syncs the whole WAL, so nothing logged before such a record is lost either. Otherwise the keeper syncs within
``sync_interval``.

Nesting. A signal handler or a ``__del__`` may log while its own thread is inside. It finds that its thread has the lock
already and commits at once, FULL for simplicity; during a fork, when no connection is open, on one of its own. Inside a
transaction its ticket is left for the outer frame, which commits it before it lets go of the lock. A handler may also
raise: that reaches the application (runtime/signals.py); the other callers are still told whether their rows are in
(journal/inserts.py).

Trouble. If the journal cannot take a batch (disk full, locked, read-only, damaged) its records and all later ones go
to a bounded memory buffer, the least severe and oldest dropped first when it is full, until the keeper gets them
committed, oldest first. While that lasts no caller waits for the journal: the first one has waited for all.

What a crash leaves behind: a batch is one statement, so all of it or nothing; a record in the memory buffer is lost
with the process, which stats().buffered and one line on stderr say while it lasts.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..journal.inserts import MAX_ROWS, Inserts, Refused
from ..runtime.clock import monotonic
from ..runtime.lock import new_lock
from ..runtime.native import get_ident
from ..runtime.signals import pass_on
from ..runtime.stderr import say
from .memory_buffer import MemoryBuffer, copied
from .ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..journal.inserts import Row
    from ..journal.store import Store

LOOK_SECONDS = 0.01  # between two looks of callers that sync whether the journal was removed
FOLLOW_LOOKS = 500  # after which it does not believe in its leader any more


class Committer:
    """Commits rows to ``store``. Thread-safe; safe in signal handlers and finalizers; fork-safe.

    ``sync_level``: level number from which a commit is synced. ``memory_limit``: bytes of the memory buffer.
    ``on_dirty``: called after a commit that was not synced, when none had been pending. ``on_synced``: called with the
    number of records after a commit that was. ``on_trouble``: called when the memory buffer begins to fill. They must
    be quick and must not take locks.
    """

    def __init__(
        self,
        store: Store,
        *,
        sync_level: int,
        memory_limit: int,
        on_dirty: Callable[[], None],
        on_synced: Callable[[int], None],
        on_trouble: Callable[[], None],
    ) -> None:
        self._store = store
        self._inserts = Inserts(store)
        self._sync_level = self._given_level = sync_level
        self._on_dirty = on_dirty
        self._on_synced = on_synced
        self._on_trouble = on_trouble
        self._arrived: deque[Ticket] = deque()
        self._leader = 0  # the thread that commits, or is about to; a hint, the lock decides
        self._left_behind = False  # a nested call could not commit its row
        self._memory_lock = new_lock()
        self._memory = MemoryBuffer(memory_limit)
        self.trouble: str | None = None  # why records go to memory, or None
        self._retry_rows = MAX_ROWS
        self.dirty = False  # something was committed and not synced
        self._look_at = 0.0  # monotonic(): whether the files are still the journal's
        self.committed = 0  # rows this process committed
        store.before_release = self._commit_left_behind
        store.turns.waiting = self._waiting_for_turn

    @property
    def buffered(self) -> int:
        """How many records are only in memory."""
        return self._memory.count

    @property
    def overflowed(self) -> int:
        """How many records the full memory buffer dropped and no journal has counted yet."""
        return sum(self._memory.dropped.values())

    def _waiting_for_turn(self) -> int:
        """See :class:`lastwords.journal.turns.Turns`."""
        return self.committed + 1 if self._leader else 0

    def sync_all(self) -> None:
        """From now on every commit is synced: the keeper is gone."""
        self._sync_level = -(2**63)

    def reopen(self) -> None:
        """Undo :meth:`sync_all`: there is a keeper again."""
        self._sync_level = self._given_level

    def append(self, row: Row) -> None:
        """Commit ``row``, or keep it in memory if the journal is in trouble. Never raises for a journal's sake."""
        if self.trouble is not None and self._keep_in_memory(row):
            return
        lock = self._store.lock
        if self._leader or lock.is_mine():
            self._append_queued(row)
            return
        # Nobody leads: commit without a ticket. If two threads claim it at once, the lock decides.
        self._leader = get_ident()
        try:
            with lock:
                self._append_first(row)
        except BaseException:
            self._on_trouble()  # the keeper is to look: an interrupt may have left the commit lock held
            raise
        finally:
            self._leader = 0
        if self._arrived:
            self._pass_on()

    def _append_first(self, row: Row) -> None:
        full = row[1] >= self._sync_level
        try:
            if self._arrived or self.trouble is not None or not self._inserts.one(row, full=full):
                self._lead_until(self._enqueue(row))
            elif full or not self.dirty:
                self._committed(1, full=full)
            else:
                self.committed += 1
        except Refused as error:
            self._enter_trouble(str(error))
            self._lead_until(self._enqueue(row))
        finally:
            if self._left_behind:
                self._commit_left_behind()
            self._inserts.let_others()

    def _enqueue(self, row: Row) -> Ticket:
        ticket = Ticket(row)
        self._arrived.append(ticket)
        return ticket

    def _append_queued(self, row: Row) -> None:
        ticket = self._enqueue(row)
        if self._store.lock.is_mine():
            self._append_nested(ticket)
        elif self._leader == get_ident():  # nested in a caller that does not have the lock yet
            self._lead_locked(ticket)
        else:
            self._follow(ticket)

    def _follow(self, ticket: Ticket) -> None:
        """Until ``ticket`` is done, by the leader or because there is none.

        Not in the line for the lock: a thread that comes back with its next record before the lock has changed hands
        would go first each time, alone, and the sleepers would starve.
        """
        patience = FOLLOW_LOOKS
        while not ticket.done:
            if self._leader and patience:
                ticket.wait()
                patience -= 1
                continue
            self._leader = get_ident()
            try:
                self._lead_locked(ticket)
            finally:
                self._leader = 0
        if self._arrived:
            self._pass_on()

    def _lead_locked(self, ticket: Ticket) -> None:
        with self._store.lock:
            try:
                self._lead_until(ticket)
            finally:
                if self._left_behind:
                    self._commit_left_behind()
                self._inserts.let_others()

    def _pass_on(self) -> None:
        """If there is no leader any more, the first caller that still waits is to lead, if nobody is faster.

        None is forgotten: a follower that saw a leader had its ticket in the queue before. One that leads asks here at
        its end; to wake somebody meanwhile would only cost two switches between threads.
        """
        if self._leader:
            return
        for ticket in copied(self._arrived):
            if not ticket.done:
                ticket.wake()
                return

    # --- leader ---------------------------------------------------------------------------------------

    def _waiting(self) -> list[Ticket]:
        """Undone tickets, oldest first; done ones at the front are let go."""
        arrived = self._arrived
        while arrived and arrived[0].done:
            arrived.popleft()
        return [t for t in copied(self._arrived, MAX_ROWS) if not t.done]

    def _lead_until(self, ticket: Ticket) -> None:
        while not ticket.done:
            self._lead()

    def _lead(self) -> None:
        batch = self._waiting()
        if self.trouble is not None or not self._commit(batch):
            with self._memory_lock:
                for ticket in batch:
                    if not ticket.done:
                        self._memory.add(ticket.row)
                        ticket.done = True
                        ticket.wake()
        arrived = self._arrived
        while arrived and arrived[0].done:
            arrived.popleft()

    def _commit(self, batch: list[Ticket]) -> bool:
        """True if the rows of ``batch`` are in the journal (they are done), False if the journal cannot take them."""
        rows = [ticket.row for ticket in batch]
        full = max(row[1] for row in rows) >= self._sync_level

        def committed() -> None:
            try:
                for ticket in batch:
                    ticket.done = True
                    ticket.wake()
            finally:
                self._committed(len(rows), full=full)

        try:
            self._inserts.batch(rows, full=full, committed=committed)
        except Refused as error:
            self._enter_trouble(str(error))
            return False
        return True

    def _committed(self, rows: int, *, full: bool) -> None:
        self.committed += rows
        if full:
            self.dirty = False
            # A few stats, beside a sync: else nobody would look while all are synced.
            if (now := monotonic()) >= self._look_at:
                self._look_at = now + LOOK_SECONDS
                if self._store.is_replaced():
                    self._on_trouble()
            self._on_synced(rows)
        elif not self.dirty:
            self.dirty = True
            try:
                self._on_dirty()
            except BaseException:  # a signal handler's, before the bell rang, perhaps
                self._on_dirty()
                raise

    # --- nested calls -----------------------------------------------------------------------------------

    def _append_nested(self, ticket: Ticket) -> None:
        if self.trouble is None and self._inserts.nested(ticket.row):
            ticket.done = True
            self.committed += 1
        else:
            self._left_behind = True  # the outer frame commits it before it lets go of the lock

    def _commit_left_behind(self) -> None:
        """Before the lock is let go: what nested calls left on the line, and not all that arrives meanwhile."""
        if self._left_behind and self._inserts.are_possible():
            self._left_behind = False
            try:
                for ticket in copied(self._arrived):
                    self._lead_until(ticket)
            except BaseException:
                self._left_behind = True  # the next to let go of the lock does the rest
                raise

    # --- trouble ------------------------------------------------------------------------------------------

    def _keep_in_memory(self, row: Row) -> bool:
        with self._memory_lock:
            if self.trouble is None:
                return False
            self._memory.add(row)
            return True

    def _enter_trouble(self, why: str) -> None:
        if self.trouble is None:
            self.trouble = why
            say(
                f"journal {self._store.path} takes no records ({why}); they wait in memory, up to"
                f" {self._memory.limit / 2**20:.0f} MiB, and die with this process until it does"
            )
        self._on_trouble()

    def refuse(self, why: str) -> None:
        """Keep what comes in memory until :meth:`retry`: the journal must not grow any further."""
        self._enter_trouble(why)

    def retry(self, *, patience: float = 0.05) -> bool:
        """Commit what waits in memory (the keeper's work, and the exit's); True when nothing is left there.

        ``patience``: seconds to wait for a locked journal; callers that arrive meanwhile go to memory at once.
        """
        if self.trouble is None:
            return True
        before = self._memory.count
        while True:
            # All in one hold of the store's lock: the leader that found the trouble holds it until its records are in
            # memory, and another thread's retry must not commit the same rows.
            with self._store.lock:
                try:
                    if not self._memory_lock.acquire(timeout=1):
                        return False  # its holder may be a signal handler's outer frame, and wait for the store
                    rows = self._memory.oldest(self._retry_rows)
                    if not rows:
                        self.trouble = None
                        lost = self.overflowed
                        break
                finally:  # taken inside: a signal handler may raise as soon as it is ours
                    try:
                        self._memory_lock.release()
                    except RuntimeError as error:  # it is not
                        pass_on(error)
                if not self._retry_batch(rows, patience):
                    self._retry_rows = max(1, self._retry_rows // 8)  # on a nearly full disk a few may fit
                    return False
                self._retry_rows = min(MAX_ROWS, self._retry_rows * 2)
        say(
            f"journal {self._store.path} takes records again; {before:,} waited in memory"
            + (f", {lost:,} did not fit and are lost" if lost else ", none is lost")
        )
        return True

    def _retry_batch(self, rows: list[Row], patience: float) -> bool:
        full = max(row[1] for row in rows) >= self._sync_level

        def committed() -> None:
            with self._memory_lock:
                self._memory.remove(rows)
            self._committed(len(rows), full=full)

        try:
            self._inserts.batch_within(patience, rows, full=full, committed=committed)
        except Refused as error:
            self._enter_trouble(str(error))
            return False
        return True

    def take_overflow(self) -> dict[int, int]:
        """What the memory buffer dropped, by level, for the journal to count; the caller counts it or gives it back."""
        with self._memory_lock:
            return self._memory.take_dropped()

    def give_back_overflow(self, drops: dict[int, int]) -> None:
        """Undo :meth:`take_overflow`: the journal could not count them."""
        with self._memory_lock:
            self._memory.give_back_dropped(drops)

    def after_fork_in_child(self) -> None:
        """The parent's callers and buffered records are the parent's."""
        self._arrived.clear()
        self._leader = 0
        self._left_behind = False
        self._memory_lock = new_lock()
        self._memory = MemoryBuffer(self._memory.limit)
        self.trouble = None
        self.dirty = False
