"""The keeper: a daemon thread that syncs and tidies, so that no caller ever has to.

Rules
-----
* It never takes the lease and never calls a target: a hung target stops neither sync nor tidying.
* It does not poll. While records arrive it looks every ``sync_interval``; in an idle process it wakes once a minute, to
  notice a replaced file and entries that a killed sibling left behind.
* Its work holds the store's lock in short slices; only a checkpoint holds it for the length of a sync.

For sync and checkpoint, see ``journal/wal``. While there is load the keeper looks at the WAL every ``LOOK_SECONDS`` and
restarts it when it holds ``CHECKPOINT_BYTES``; a minute after the load has ended it cuts the file.

For what is pruned and shed, see ``journal/tidy``.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from ..errors import JournalDamaged
from ..journal import continuity, tidy, wal
from ..journal.explain import TROUBLE, reason_of
from ..journal.line import Line
from ..runtime.clock import monotonic
from ..runtime.exit import exit_deadline
from ..runtime.signals import is_interrupt
from ..runtime.stderr import say
from . import damaged_file
from .chores import AWAKE, IDLE, RESTING, Chores
from .recovery import Mover

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..append.committer import Committer
    from ..journal.store import Store
    from ..runtime.bell import Bell

T = TypeVar("T")
CHECKPOINT_BYTES = 32 * 2**20  # of WAL, under load; a checkpoint keeps callers waiting for some 2 ms
SYNCED_CHECKPOINT_BYTES = 4 * 2**20  # while most commits are synced: to sync what lengthens the file costs double
LOOK_SECONDS = 0.1  # between two looks at the WAL, while records come fast
FLOOD_ROWS = 1_000  # that may come before the next sync: fewer do not fill the WAL
WAL_KEPT_BYTES = 2**20  # a WAL file of that size may stay when the load has ended
SLACK_SECONDS = 60.0  # how long no record must have come before it is cut: the next burst finds its pages there
STUCK_TIMES = 4  # max_bytes: a WAL that cannot be emptied takes no more records from there on
IDLE_SECONDS = 60.0
FIRST_LOOK_SECONDS = 1.0  # after a fork: the child may be gone without having delivered
TROUBLE_SECONDS = 0.5
TIDY_SECONDS = 1.0  # between two rounds of pruning
PRUNE_PAUSE = 0.0003  # between two slices of one: it must get ahead of any flood
PRUNE_SECONDS = 0.002  # of a processor, for a prune; the next one is smaller if it took longer


class Keeper:
    """The thread. ``sync_interval``, ``keep_delivered``: seconds; ``max_bytes``: bytes; ``on_stray``: entries may wait.

    Started lazily by :meth:`nudge`; a forked child starts its own.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        chores: Chores,
        *,
        sync_interval: float,
        keep_delivered: float,
        max_bytes: int,
        on_stray: Callable[[], None],
    ) -> None:
        self._store = store
        self._committer = committer
        self._chores = chores
        self._sync_interval = sync_interval
        self.keep_delivered = keep_delivered
        self._max_bytes = max_bytes
        self._on_stray = on_stray
        self._backfill = wal.Backfill(store)
        self._mover = Mover(store)
        self._look_seconds = IDLE_SECONDS
        self._tidied_at = monotonic()
        self._prune_rows = tidy.PRUNE_ROWS
        self._looked_at = 0.0  # at the WAL, while tidying
        self._last_error = ""
        store.before_close = self.move
        chores.are_done_by(self._run)

    # --- called by others ---------------------------------------------------------------------------

    def nudge(self) -> None:
        """There is something to do. Takes no lock; safe in a signal handler."""
        self._chores.nudge()

    def stop(self) -> None:
        """Let the thread end. Takes no lock; safe in ``__del__``."""
        self._chores.stop()

    def join(self, timeout: float) -> bool:
        """Wait for the thread after :meth:`stop`, ``timeout`` seconds at most; True if it is gone."""
        return self._chores.join(timeout)

    def reopen(self) -> None:
        """After :meth:`stop`: another thread begins when that one has ended."""
        self._chores.begin_anew(self._chores.thread)

    @property
    def is_short(self) -> bool:
        """True if no thread could be started for it."""
        return self._chores.is_short

    def work_once(self) -> None:
        """What cannot be left undone, in a caller, as no thread can be started: sync, the WAL's end, what waits."""
        committer = self._committer
        if committer.dirty and self._until_sync() > 0:
            return
        try:
            if committer.trouble is not None and not committer.retry():
                return
            if committer.dirty:
                self.sync()
            self._checkpoint_if_full()
        except TROUBLE as error:
            say(f"journal {self._store.path} could not be synced: {reason_of(error)}")

    def after_fork_in_parent(self) -> None:
        """A child that commits may leave by os._exit(), and this process may never log."""
        self._look_seconds = FIRST_LOOK_SECONDS
        self.nudge()

    def after_fork_in_child(self) -> None:
        """The thread stayed in the parent."""
        self._chores.after_fork_in_child()
        self._mover.after_fork_in_child()

    def move(self) -> None:
        """What a removed or damaged file has goes into the journal. Raises JournalError and OSError.

        All of it; at the exit, what a next start can go on with may be left to that one.
        """
        self._mover.run(self._committer, until=exit_deadline())

    @property
    def moving(self) -> int:
        """How many entries are still to be moved, at most."""
        return self._mover.left

    def ask(self, question: Callable[[], T], if_damaged: T) -> T:
        """What is asked of the journal in a caller. Damage that is met is the keeper's to repair, and no exception."""
        try:
            return question()
        except JournalDamaged as error:
            self.meets(error)
            return if_damaged

    def meets(self, error: Exception) -> None:
        """A caller met trouble; if it is damage, it is to be repaired."""
        self._store.blames_file(error)
        self.nudge()

    # --- the thread -----------------------------------------------------------------------------------

    def _run(self, bell: Bell) -> None:
        while not bell.is_set():
            self._chores.asked = False
            pause = self.tick()
            self._chores.state = AWAKE if pause <= 0.0 else IDLE if pause >= SLACK_SECONDS else RESTING
            if not self._is_needed(pause):
                bell.wait(pause)
            self._chores.state = AWAKE

    def _is_needed(self, pause: float) -> bool:
        """Asked after the flags that make others ring were set: nothing falls between the two."""
        committer = self._committer
        if pause == TROUBLE_SECONDS:
            return False  # it has just been tried
        trouble = committer.trouble is not None or self._store.damaged is not None
        return committer.dirty or self._chores.unseen or trouble or self._chores.are_urgent()

    def tick(self) -> float:
        """Do what is due; seconds until the next look."""
        try:
            pause = self._tick()
        except BaseException as error:  # whatever it is, the thread must go on: nobody else syncs
            if is_interrupt(error):  # not on the thread
                raise
            # The repair speaks of damage; of the rest it is said once, not every time.
            if not self._store.blames_file(error) and repr(error) != self._last_error:
                self._last_error = repr(error)
                say(f"journal {self._store.path}: the keeper cannot work: {reason_of(error)}")
            return TROUBLE_SECONDS
        self._last_error = ""
        return pause

    def _tick(self) -> float:
        committer = self._committer
        self._mover.run(committer, self._keep_up)
        with self._store.lock:
            self._store.commit_lock.close_if_replaced()
        if self._store.damaged is not None:
            with self._store.lock:  # nothing is logged between the opening of a new file and the first slice
                damaged_file.repair_open(self._store)
                self._mover.expect()
                self._mover.step(committer)
            self._mover.run(committer, self._keep_up)
        if committer.trouble is not None and not self._leave_trouble(committer):
            return TROUBLE_SECONDS
        self._count_overflow()
        if committer.dirty or self._chores.unseen:
            self._see_to_new_records()
        self._checkpoint_if_full()
        self._chores.synced_much = False
        if self._chores.tidying and monotonic() - self._tidied_at >= TIDY_SECONDS:
            self._chores.tidying = False
            self.tidy()
            self._tidied_at = monotonic()
        if self._is_over():
            self._make_room()
        if committer.dirty:
            return 0.0
        if self._chores.tidying or self._is_over():
            return TIDY_SECONDS
        if Line(self._store).has_pending():
            self._on_stray()
        pause = self._cut_wal()
        if self._look_seconds < pause:  # a child was forked: soon, then later and later
            pause, self._look_seconds = self._look_seconds, self._look_seconds * 2
        return pause

    def _see_to_new_records(self) -> None:
        self._chores.quiet_since = None
        # Early, too: a process that is killed before the sync has noted some of them at least.
        for pause in (0.0, LOOK_SECONDS):
            self._chores.bell.wait(min(pause, max(0.0, self._until_sync())))
            continuity.note(self._store)
        self._wait_for_more()
        self._chores.unseen = False
        if self._committer.dirty:
            self.sync()
        self._mover.run(self._committer, self._keep_up)  # what came meanwhile may have gone into a removed file
        continuity.note(self._store)

    def _wait_for_more(self) -> None:
        """Until the sync is due, with an eye on the WAL: at full speed it would grow by 100 MB a second.

        Between looks at how many records came, not at the file: each system call gives the GIL away, and beside a
        thread that computes, the callers would wait for it in our line.
        """
        committer = self._committer
        before = committer.committed
        while not self._chores.bell.wait(min(LOOK_SECONDS, self._until_sync())) and self._until_sync() > 0:
            came, before = committer.committed - before, committer.committed
            few = came * self._until_sync() / LOOK_SECONDS < FLOOD_ROWS
            if few and wal.file_size(self._store) <= self._wal_limit():
                self._chores.bell.wait(self._until_sync())
                return
            self._checkpoint_if_full()

    def _wal_limit(self) -> int:
        """Bytes of WAL, from which on it is to be begun anew."""
        limit = min(CHECKPOINT_BYTES, self._max_bytes // 8)
        return min(limit, SYNCED_CHECKPOINT_BYTES) if self._chores.synced_much else limit

    def _checkpoint_if_full(self) -> None:
        limit = self._wal_limit()
        # A system call tells that it is not; which frames of a large file count, takes a dozen.
        if wal.file_size(self._store) <= limit or wal.fill(self._store) <= limit:
            return
        self._chores.synced_much = False
        self._backfill.run()
        # A file that grew this large, because a reader was in the way, is not kept.
        if not wal.checkpoint(self._store, shrink=wal.file_size(self._store) > 4 * CHECKPOINT_BYTES):
            self._refuse_if_stuck()

    def _refuse_if_stuck(self) -> None:
        """Asked after a try to cut the WAL: a reader keeps it, and it is far beyond what the journal may hold."""
        size = wal.file_size(self._store)
        if size > STUCK_TIMES * self._max_bytes:
            self._committer.refuse(
                f"another program reads it: its -wal of {size / 2**20:.0f} MiB cannot be cut; see `lsof`"
            )

    def _cut_wal(self) -> float:
        """Nothing is left to do: give the WAL's space back, unless more comes soon; seconds until the next look."""
        if wal.file_size(self._store) <= WAL_KEPT_BYTES:
            return IDLE_SECONDS
        chores, now = self._chores, monotonic()
        if chores.quiet_since is None:
            chores.quiet_since = now
        if now - chores.quiet_since < SLACK_SECONDS:  # it may have been rung for something else
            return SLACK_SECONDS
        self._backfill.run()  # most of the work, beside whoever logs
        wal.checkpoint(self._store, shrink=True)
        return IDLE_SECONDS

    def sync(self) -> None:
        """Sync what was committed; also for ``flush`` and the exit."""
        committer = self._committer
        committer.dirty = False  # first: what is committed from here on is dirty again
        try:
            wal.sync(self._store)
        except OSError:
            committer.dirty = True
            raise

    def tidy(self) -> None:
        """Prune, and give space back, in slices."""
        while not self._chores.bell.is_set() and self._prune():
            self._keep_up(PRUNE_PAUSE)
        while not self._chores.bell.is_set() and tidy.vacuum_slice(self._store):
            self._keep_up()

    def _prune(self) -> int:
        """A slice. Large entries come fewer at a time: each of their pages is overwritten."""
        began = time.thread_time()  # not what it waited for the lock: in a flood it would fall behind
        deleted = tidy.prune_slice(self._store, self.keep_delivered, self._prune_rows)
        fits = time.thread_time() - began < PRUNE_SECONDS
        self._prune_rows = min(self._prune_rows * 2, tidy.PRUNE_ROWS) if fits else max(self._prune_rows // 2, 1)
        return deleted

    def _keep_up(self, pause: float = 0.001) -> None:
        """Between two slices. After a burst they take long: neither callers nor the sync nor the WAL wait for them."""
        self._chores.bell.wait(pause)
        self._store.turns.let_callers()
        committer = self._committer
        if committer.dirty and self._until_sync() <= 0:
            self.sync()
        if monotonic() - self._looked_at > LOOK_SECONDS:
            self._looked_at = monotonic()
            self._checkpoint_if_full()

    def _until_sync(self) -> float:
        """Seconds; one sync serves all that arrives within the interval, and 3/4 of it leaves time to sync."""
        return self._chores.dirty_at + self._sync_interval * 0.75 - monotonic()

    def _leave_trouble(self, committer: Committer) -> bool:
        if wal.file_size(self._store) > STUCK_TIMES * self._max_bytes:
            self._backfill.run()
            if not wal.checkpoint(self._store, shrink=True):
                return False
        before = committer.committed
        done = committer.retry()
        if not done:
            self._free_space()
            done = committer.retry()
        if committer.committed > before:
            self._on_stray()  # no caller rang for these
        return done

    def _free_space(self) -> None:
        """The journal takes nothing: what was settled may be in the way. Deleting works on a full quota, at times."""
        for free in (self.tidy, lambda: wal.checkpoint(self._store, shrink=True)):
            with suppress(*TROUBLE):  # the trouble itself, which has been said
                free()

    def _is_over(self) -> bool:
        """Whether the files are larger than they may be; a WAL that is as short as it gets does not count."""
        size = wal.file_size(self._store)
        return self._main_bytes() + (size if size > min(WAL_KEPT_BYTES, self._max_bytes // 8) else 0) > self._max_bytes

    def _main_bytes(self) -> int:
        try:
            return os.stat(self._store.path).st_size
        except FileNotFoundError:  # removed: the next look moves what is in it
            return 0

    def _make_room(self) -> None:
        """First what costs nothing, then what was delivered, then what waits, until it is no more than ``max_bytes``.

        The WAL is not counted against entries: a reader may keep it, and dropping entries makes it longer.
        """
        store, most = self._store, self._max_bytes
        self._backfill.run()
        wal.checkpoint(store, shrink=True)
        # Whatever keep_delivered says: nothing pending is dropped for the sake of what was delivered.
        while self._excess() > 0 and tidy.prune_slice(store, 0.0):
            self._keep_up()
        excess = self._excess()
        if excess > 0:
            tidy.shed(store, most, excess, self._keep_up)
        while self._main_bytes() > most and tidy.vacuum_slice(store, 0):
            self._keep_up()
        if wal.file_size(store) > most // 8 and not wal.checkpoint(store, shrink=True):
            self._refuse_if_stuck()

    def _excess(self) -> int:
        return tidy.used_bytes(self._store) - wal.file_size(self._store) - self._max_bytes

    def _count_overflow(self) -> None:
        committer = self._committer
        drops = committer.take_overflow()
        if drops:
            try:
                tidy.note_drops(self._store, drops)
            except BaseException:
                committer.give_back_overflow(drops)
                raise
