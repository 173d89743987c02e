"""What one handler runs: the committer, the keeper and the courier of one journal, and how they end.

The handler refers to the engine and nothing in the engine refers to the handler, so that a handler which is simply
forgotten can be collected: its threads deliver what the target takes at once, and end.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from .append.committer import Committer
from .delivery.courier import Courier
from .journal import continuity, files, places
from .journal.explain import TROUBLE, reason_of
from .journal.line import Line, Stats
from .journal.rows import UNKNOWN
from .opening import check_lease, open_store
from .runtime.clock import monotonic
from .runtime.exit import arm, deadline_within, disarm, exit_deadline
from .runtime.fork import follow_forks, notice
from .runtime.guard import THREADS_END_EARLY, is_delivering, is_passive
from .runtime.lock import new_lock
from .runtime.native import pause
from .runtime.stderr import say
from .upkeep.chores import Chores
from .upkeep.keeper import Keeper

if TYPE_CHECKING:
    from .journal.inserts import Row
    from .targets.contract import Target

_engines: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()  # by id()


def open_engines() -> set[Engine]:
    """The engines of this process's DurableHandlers."""
    return {engine for engine in (ref() for ref in _engines.valuerefs()) if engine is not None}


def _engine_at(path: str) -> Engine | None:
    """The open engine of the journal at ``path``: by the path, or by the file that it has now, which may be another."""
    identity, place = files.identify(path), places.resolved(path)
    for engine in open_engines():
        same = identity is not None and engine.store.identity == identity
        if not engine.closed and (same or places.resolved(engine.store.path) == place):
            return engine
    return None


def _refuse_second(path: str) -> None:
    """At most one open handler for a journal in a process: two would both deliver, under one lease."""
    other = None if is_passive() else _engine_at(path)
    if other is None:
        return
    if other.reopened:  # it was closed, and somebody logged to it meanwhile: as free as before
        other.step_aside()
    else:
        raise ValueError(
            f"journal {path} already has an open DurableHandler in this process: share that one, close it first, "
            "or give each its own journal"
        )


class Engine:
    """See the module. Thread-safe; a forked child goes on with connections and threads of its own."""

    def __init__(
        self,
        path: str,
        target: Target | None,
        *,
        mode: int,
        sync_level: int,
        sync_interval: float,
        memory_limit: int,
        max_bytes: int,
        keep_delivered: float,
        drain_timeout: float,
        linger: float | None,
        batch_size: int | None,
        suspect_after: int,
        retry_min: float,
        retry_max: float,
        max_age: float | None,
    ) -> None:
        self.drain_timeout = drain_timeout
        self.closed = self._closing = False
        self._ready = 0  # the pid of the process in which nothing is left to be prepared for the next record
        self.reopened = False  # it was closed once
        self._over = False  # the handler is gone: nothing begins anew
        self._logged_meanwhile = False  # while it was being closed
        self._told_loss = False
        self.fork_lock = new_lock()
        _refuse_second(path)  # before SQLite sees it: through a hard link it would get a WAL of its own
        self.store = open_store(path, mode)
        if target is not None:
            check_lease(self.store)
        _engines[id(self)] = self
        self.journal = Line(self.store)
        self._known = UNKNOWN
        chores = Chores(self._on_short)
        self.committer = Committer(
            self.store,
            sync_level=sync_level,
            memory_limit=memory_limit,
            on_dirty=chores.dirtied,
            on_synced=chores.synced,
            on_trouble=chores.nudge,
        )
        self.keeper = Keeper(
            self.store,
            self.committer,
            chores,
            sync_interval=sync_interval,
            keep_delivered=keep_delivered,
            max_bytes=max_bytes,
            on_stray=self._on_stray,
        )
        self.courier: Courier | None = None
        if target is not None:
            self.courier = Courier(
                self.journal,
                target,
                linger=linger,
                on_settled=chores.settled,
                on_damage=self.keeper.nudge,
                batch_size=batch_size,
                suspect_after=suspect_after,
                retry_min=retry_min,
                retry_max=retry_max,
                max_age=max_age,
            )
            self.courier.delivery.look_on()
        follow_forks(self)
        if not is_passive():  # the command line may only look
            self._move()
            self.remember("keep_delivered", f"{keep_delivered:g}")
            self.remember("max_bytes", str(max_bytes))
            self._begin()

    def remember(self, key: str, value: str) -> None:
        """Note something for the command line: where entries go, how long `flush` from cron keeps what it delivered."""
        try:
            if (self.journal.get_meta(key) or "0") != value:
                self.journal.set_meta(key, value)
        except TROUBLE as error:  # a full disk is no reason not to start
            say(f"journal {self.store.path} cannot be written: {reason_of(error)}")

    def _move(self) -> None:
        try:
            self.keeper.move()
        except TROUBLE as error:  # the keeper tries again
            say(f"journal {self.store.path}: what a removed or damaged file has waits to be moved: {reason_of(error)}")
            self.keeper.nudge()

    def _begin(self) -> None:
        try:
            pending = self.journal.has_pending()
        except TROUBLE as error:  # damage that no look at the file has found: the keeper repairs it
            pending = True
            self.keeper.meets(error)
        if pending or THREADS_END_EARLY:
            arm(self)
            if self.courier is not None:
                self.courier.wake()
                self.keeper.nudge()

    # --- the caller's path ---------------------------------------------------------------------------

    def append(self, row: Row) -> None:
        """Commit ``row`` and wake the courier if it sleeps."""
        if self._ready != os.getpid():
            self._prepare()
        self.committer.append(row)
        courier = self.courier
        if courier is not None and courier.asleep and not self.closed:
            courier.wake()
            if courier.is_short:
                self._ready = 0
        elif self.closed and (heir := self._successor()) is not None:
            heir._on_stray()

    def _prepare(self) -> None:
        """What is done once in a process, after a close, and for as long as no thread can be started."""
        notice()
        if self.closed:
            self._logged_meanwhile = True
            if self.committer.trouble is not None:
                self.committer.retry()
            if not self._reopen():
                return
        arm(self)
        if self.keeper.is_short:
            self.keeper.nudge()
        if self.keeper.is_short:  # nobody else does, as long as there can be no thread
            self.keeper.work_once()
        elif self.courier is None or not self.courier.is_short:
            self._ready = os.getpid()

    def _reopen(self) -> bool:
        """Closed by somebody, and logged to again: as good as new, as a FileHandler opens its file again.

        Not while it is being closed, nor while the process ends: what is logged then is journaled, for the next run;
        nor if the journal has another handler by now.
        """
        if self._closing or self._over or exit_deadline() is not None or is_passive():
            return False
        with self.fork_lock:
            if not self.closed:
                return True  # by another thread
            if self._successor() is not None:
                return False
            self.store.reopen()
            self.committer.reopen()
            self.keeper.reopen()
            if self.courier is not None:
                self.courier = self.courier.successor()
            self.closed, self.reopened = False, True
        return True

    def step_aside(self) -> None:
        """The journal has another handler now, which delivers what is logged here, too."""
        self.closed, self._ready = True, 0
        self.committer.sync_all()
        self.finish(monotonic())
        self.keeper.stop()

    def _successor(self) -> Engine | None:
        """Another open engine of this journal."""
        return None if (other := _engine_at(self.store.path)) is self else other

    # --- callbacks -----------------------------------------------------------------------------------

    def _on_short(self) -> None:
        self._ready = 0

    def _on_stray(self) -> None:
        """The keeper found pending entries while the courier slept: a sibling was killed."""
        if self.courier is not None and self.courier.asleep and not self.closed:
            self.courier.wake()

    # --- for users -----------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """See :meth:`lastwords.DurableHandler.stats`."""
        notice()
        with self.store.lock:  # all of one moment
            try:
                stats = self._known = self.journal.stats()
            except TROUBLE as error:  # what was known before has to do
                self.keeper.meets(error)
                stats = self._known._replace(last_error=f"the journal cannot be read: {reason_of(error)}")
            pending, dropped = stats.pending + self.keeper.moving, stats.dropped + self.committer.overflowed
            return stats._replace(pending=pending, dropped=dropped, buffered=self.committer.buffered)

    def sync(self) -> None:
        """What is journaled is on the medium, in the file at the path; trouble is the keeper's to report."""
        try:
            self.store.see_to_files()
            self.keeper.move()
            if self.committer.trouble is not None:
                self.committer.retry()
            if self.committer.dirty:
                self.keeper.sync()
            continuity.note(self.store)
        except TROUBLE as error:
            say(f"journal {self.store.path} could not be synced: {reason_of(error)}")

    def flush(self) -> None:
        """Sync, and wake the courier out of a pause."""
        notice()
        self.sync()
        if self.courier is not None and not self.closed:
            self.courier.wake()

    def drain(self, timeout: float | None) -> bool:
        """See :meth:`lastwords.DurableHandler.drain`."""
        notice()
        if is_delivering():
            return False
        deadline = float("inf") if timeout is None else deadline_within(timeout)
        newest = None
        while newest is None or self.keeper.moving:  # this one asked for after that: it may have just begun
            while self.committer.buffered or self.keeper.moving or self.store.damaged:  # logged before: is settled, too
                if monotonic() >= deadline:
                    return False
                self.keeper.nudge()
                pause(0.05)
            newest = self.keeper.ask(self.journal.newest_seq, None)

        def done() -> bool:
            with self.store.lock:  # else a damaged file is set aside between the two questions
                return not (self.keeper.moving or self.keeper.ask(lambda: self.journal.has_pending_up_to(newest), True))

        if done():
            return True
        if self.courier is not None and not self.closed:
            self.courier.wake()
            return self.courier.drain_until(done, newest, deadline)
        while not done():  # a cron job or another process delivers
            if monotonic() >= deadline:
                return False
            pause(0.05)
        return True

    # --- ends ----------------------------------------------------------------------------------------

    def finish(self, deadline: float) -> None:
        """See :class:`lastwords.runtime.exit.Finisher`."""
        if self.courier is not None:
            self.courier.finish(deadline)

    def join(self, deadline: float) -> None:
        """See :class:`lastwords.runtime.exit.Finisher`. The journal stays open: later records still commit."""
        self._empty_memory(deadline)
        if self.courier is not None:
            self.courier.join(deadline)
            ending = exit_deadline() is not None or self.courier.voice.failing
            if ending and self.courier.leaves:
                self.courier.voice.ends(self.courier.delivery.last_error)
        self.sync()
        if (left := self.committer.buffered) and exit_deadline() is not None and not self._told_loss:
            self._told_loss = True  # logging.shutdown() closes what the exit pass has been through
            what = "1 record is" if left == 1 else f"{left:,} records are"
            say(f"journal {self.store.path}: {what} only in memory, and lost with this process")

    def _empty_memory(self, deadline: float) -> None:
        """What waits in memory dies with the process: the disk may have room again, the lock may go, until then."""
        self._move()  # first, and all of it: what a removed file has dies with the process, too
        while self.committer.buffered and not self.committer.retry() and monotonic() < deadline:
            self.keeper.nudge()  # it makes room
            pause(0.05)

    def close(self) -> None:
        """Drain within the deadline, leave the rest; idempotent."""
        notice()
        if self.closed:
            return
        self._closing = self.closed = True
        self._logged_meanwhile, self._ready = False, 0
        try:
            self._close()
        finally:
            self._closing = False
        if self._logged_meanwhile and self._reopen():
            arm(self)
            self._on_stray()

    def _close(self) -> None:
        deadline = deadline_within(self.drain_timeout)
        if is_delivering():
            deadline = monotonic()  # closed by the target's own code: do not wait for oneself
        self.finish(deadline)
        self.committer.sync_all()  # before the last sync: what comes after it is synced by its caller
        self.join(deadline)
        self.keeper.stop()
        if (self.courier is None or self.courier.thread is None) and self.keeper.join(0.5):
            self._close_store()  # a record that is logged later opens it again

    def _close_store(self) -> None:
        try:
            self.store.close()
        except TROUBLE as error:
            say(f"journal {self.store.path} could not be closed: {reason_of(error)}")

    def retire(self) -> None:
        """The handler was collected. Takes no lock."""
        self._over, self.closed, self._ready = True, True, 0
        self.keeper.stop()
        self.committer.sync_all()
        if self.courier is not None:
            self.courier.retire(self.drain_timeout)

    def abandon(self) -> None:
        """The command line built the handler, and the end of this process is to deliver nothing of it."""
        self.retire()
        disarm(self)

    # --- fork ----------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """The store closes its connection; there is nothing else to give up."""

    def after_fork_in_parent(self) -> None:
        """What the child commits and does not deliver is to be noticed, also by a process that never logs itself."""
        if not (self.closed or is_passive()):
            self.keeper.after_fork_in_parent()

    def after_unseen_fork(self) -> None:
        """See :class:`lastwords.runtime.fork.Forkable`."""

    def after_fork_in_child(self) -> None:
        """Couriers start again with the child's first record."""
        self._ready = 0
        self.committer.after_fork_in_child()
        self.keeper.after_fork_in_child()
        if self.courier is not None:
            self.courier.after_fork_in_child()
