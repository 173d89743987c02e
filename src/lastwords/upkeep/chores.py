"""What callers leave to the keeper, and how it is woken: what both sides share, and all that they share.

Callers only set and ring, the keeper only looks and clears. So it is safe in a signal handler and in ``__del__``, and
takes no lock. Nothing falls between the two: the thread that sets one looks at ``state`` afterwards, and the keeper
looks at what was set after it has set its ``state``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.bell import Bell
from ..runtime.clock import monotonic
from ..runtime.guard import is_passive
from ..runtime.native import get_ident
from ..runtime.thread import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..runtime.thread import AnyThread

TELL_SYNCED = 500  # records whose commits their callers synced, after which the keeper looks at the WAL
AWAKE, RESTING, IDLE = range(3)  # the keeper: at work; in a pause that a record to be synced ends; that anything ends


class Chores:
    """One keeper's. The thread starts when it is first needed; a forked child starts its own."""

    def __init__(self, on_short: Callable[[], None] = lambda: None) -> None:
        self._on_short = on_short  # no thread could be started
        self._before: AnyThread | None = None  # the thread of a keeper that was stopped
        self.bell = Bell()
        self._worker = Worker("lastwords-keeper")
        self._work: Callable[[Bell], None] | None = None
        self.state = IDLE
        self.asked = False  # since the last look, for whatever reason
        self.dirty_at = 0.0  # when the oldest record came that is not synced
        self.unseen = False  # records were synced by their callers since the keeper looked whether the files are whole
        self._synced = 0
        self.synced_much = False  # by callers: nothing to sync, but the WAL grows
        self.tidying = False  # something was settled since the last time
        self.quiet_since: float | None = None  # monotonic(): a look found no new record, and none came since

    def are_done_by(self, work: Callable[[Bell], None]) -> None:
        """What the thread is to run."""
        self._work = work

    # --- by callers -------------------------------------------------------------------------------------

    def nudge(self) -> None:
        """There is something to sync, or trouble."""
        self.asked = True  # first: the keeper may be awake, and past what it is asked for
        if self._worker.thread is None:
            if self._work is not None and not is_passive():
                self._worker.start(self._run, self._before, self._work, self.bell)  # else the exit pass syncs
                if self._worker.is_short:
                    self._on_short()
        elif self.state != AWAKE:
            self.state = AWAKE
            self.bell.ring()

    def dirtied(self) -> None:
        """A record was committed and not synced, the first since the last sync."""
        self.dirty_at = monotonic()
        self.nudge()

    def synced(self, rows: int) -> None:
        """Records were committed, and synced by their caller."""
        self._synced += rows
        if self._synced >= TELL_SYNCED:
            self._synced = 0
            self.synced_much = True
            self.quiet_since = None
            self.bell.ring()  # it may be waiting for more, and not look at how large the WAL becomes
        elif self.unseen:
            return
        if not self.unseen:
            self.unseen = True
            self.dirty_at = monotonic()
        self.nudge()

    def settled(self, _delivered: int) -> None:
        """Entries were settled: there may be rows to prune."""
        self.tidying = True
        if self.state == IDLE:
            self.nudge()

    # --- by the thread and those who end it -------------------------------------------------------------

    def are_urgent(self) -> bool:
        """Whether something came that this pause must not keep waiting."""
        return self.asked or self.synced_much or (self.tidying and self.state == IDLE)

    def stop(self) -> None:
        """Let the thread end."""
        self.bell.set()

    def join(self, timeout: float) -> bool:
        """Wait for the thread after :meth:`stop`, ``timeout`` seconds at most; True if it is gone."""
        thread = self._worker.thread
        if thread is not None and thread.ident != get_ident():
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    @property
    def thread(self) -> AnyThread | None:
        """The thread, dead or alive."""
        return self._worker.thread

    @property
    def is_short(self) -> bool:
        """True if no thread could be started."""
        return self._worker.is_short

    @staticmethod
    def _run(before: AnyThread | None, work: Callable[[Bell], None], bell: Bell) -> None:
        if before is not None:
            before.join(1e6)  # it may be on its last round
        work(bell)

    def after_fork_in_child(self) -> None:
        """The thread stayed in the parent."""
        self.begin_anew(None)

    def begin_anew(self, before: AnyThread | None) -> None:
        """Another thread is to do the work, when the one ``before`` has ended."""
        self._before = before
        self.bell = Bell()
        self._worker.forget()
        self.state = IDLE
