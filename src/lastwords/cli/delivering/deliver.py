"""Delivering from the command line: what ``flush`` and ``replay`` share.

Theory of operation
-------------------
One *job* per journal. Before anything is opened for writing the journal is looked at: one that is damaged, foreign,
missing or of a newer format is reported and not touched, and one with nothing pending needs no work.

Jobs with the same target form a group, and each group has a daemon thread: a target that hangs holds up neither the
other groups nor the deadline, and an interrupt reaches the main thread, which asks the courier's loop to stop after
the mark that is due. A thread that does not come back is left behind (``output.leave_behind``): its entry is pending.

Within a group every journal gets one try first, then those with entries left share the time that remains, so that one
of them cannot use it all up.
"""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lastwords.delivery import lease as lease_
from lastwords.delivery.lease import Lease
from lastwords.delivery.loop import Delivery, Outcome
from lastwords.errors import JournalDamaged, JournalError
from lastwords.journal import ownership, tidy, wal
from lastwords.journal.journal import Fenced, Journal
from lastwords.journal.store import Store
from lastwords.runtime.bell import Bell
from lastwords.upkeep import keeper, recovery

from ...journal import readonly
from ...journal.explain import TROUBLE, explain, explained
from ...runtime.clock import monotonic
from .. import output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from lastwords.targets.contract import Target

GRACE_SECONDS = 2.0  # for a delivery that is under way when the time is up
LEASE_TRIES = 5  # `status` holds the lock for an instant when it looks who has it


class Terminated(BaseException):
    """SIGTERM."""


@dataclass(slots=True)
class Way:
    """How entries leave a journal: the target, the knobs of Delivery, and how long delivered entries are kept."""

    target: Target
    knobs: dict[str, Any] = field(default_factory=dict)
    keep_delivered: float | None = None  # None: what the journal says
    journal: Journal | None = None  # opened already, by the DurableHandler of a configuration
    of_owner: bool = False  # the target is the owner's choice, and not that of who typed the command


@dataclass(slots=True)
class Job:
    """One journal, and what becomes of it."""

    path: str
    way: Way | None = None
    pending: int = 0  # at the first look
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
    lease_pid: int | None = None
    in_the_way: str = ""  # the holder of the lease does not deliver: it is stopped, or its target hangs
    seconds: float = 0.0
    began: float | None = None  # monotonic, while somebody works on it
    bell: Bell = field(default_factory=Bell)
    stopping: bool = False
    delivery: Delivery | None = None

    def as_owner(self) -> AbstractContextManager[None]:
        """Root is the journal's owner inside."""
        return ownership.as_owner(self.path, targets_too=self.way is not None and self.way.of_owner)

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
            "lease_pid": self.lease_pid,
            "exit_code": self.exit_code,
        }


def inspect(path: str) -> tuple[Job, bool]:
    """Look at a journal; whether there is anything to do is the second value (delivering, or only pruning)."""
    job = Job(path)
    try:
        with explained(path), readonly.look(path) as journal:
            job.pending = job.remaining = journal.stats().pending
            prunable = journal.oldest_settled()
            keep = kept(journal)
    except JournalError as error:
        job.error = error
        return job, False
    if not job.pending:
        job.outcome = Outcome.DONE
    return job, bool(job.pending) or (prunable is not None and prunable < time.time() - keep)


def kept(journal: Journal) -> float:
    """How long the journal's own handler keeps delivered entries, in seconds."""
    try:
        return max(0.0, float(journal.get_meta("keep_delivered") or 0.0))
    except ValueError:
        return 0.0


# --- one journal ---------------------------------------------------------------------------------------


def settle(job: Job, *, deadline: float | None, once: bool, take_over: bool) -> None:
    """Deliver and settle what is pending, then tidy. Everything that happens is written into ``job``."""
    try:
        with job.as_owner():
            _settle(job, deadline, once=once, take_over=take_over)
            if isinstance(job.error, JournalDamaged) and job.salvaged_as is None:
                _salvage(job, job.error)
                _settle(job, deadline, once=once, take_over=take_over)
    except JournalError as error:
        job.error = error


def _salvage(job: Job, error: JournalDamaged) -> None:
    """As a handler would: its service may be gone for good. Raises JournalError."""
    with explained(job.path):
        recovery.salvage(job.path, error)
    job.salvaged_as = "; ".join(readonly.set_aside_files(job.path))
    job.error = None
    job.damaged += 1
    job.notes.append(f"{job.path}: {error.problem}; set aside as {job.salvaged_as}, and what can be read is delivered")


def _settle(job: Job, deadline: float | None, *, once: bool, take_over: bool) -> None:
    assert job.way is not None
    job.begin()
    journal = None
    try:
        open_already = job.way.journal if job.salvaged_as is None else None
        journal = open_already or Journal(Store(job.path, create=False))
        if job.delivery is None:
            job.delivery = _delivery(job, journal)
        job.delivery.journal, job.delivery.deadline = journal, deadline
        job.outcome = _drain(job, job.delivery, once=once, take_over=take_over)
        job.remaining = journal.stats().pending
        _tidy(job, journal)
    except Fenced:
        job.outcome = Outcome.BUSY  # another process took the lease over
    except (*TROUBLE, ValueError, TypeError) as error:
        job.error = explain(job.path, error)
    finally:
        if job.delivery is not None:
            job.delivered, job.buried = job.delivery.delivered, job.delivery.buried
            job.last_error = job.delivery.last_error
        if journal is not None:
            journal.close()
        job.end()


def _delivery(job: Job, journal: Journal) -> Delivery:
    assert job.way is not None
    delivery = Delivery(journal, job.way.target, Lease(job.path), job.bell, **job.way.knobs)
    delivery.hurry = True
    if job.limit is not None:
        _stop_at(job.limit, delivery)
    return delivery


def _stop_at(limit: int, delivery: Delivery) -> None:
    most = delivery.batch_size

    def count(_delivered: int) -> None:
        left = limit - delivery.delivered - delivery.buried
        delivery.batch_size = max(1, min(most, left))
        if left <= 0:
            delivery.bell.set()

    delivery.on_settled = count
    count(0)


def _drain(job: Job, delivery: Delivery, *, once: bool, take_over: bool) -> Outcome:
    for _ in range(LEASE_TRIES):
        outcome = delivery.drain(take_over=take_over, once=once)
        if outcome is not Outcome.BUSY:
            break
        holder = lease_.look(job.path)
        if holder is not None:
            job.lease_pid = holder.pid
            job.in_the_way = _in_the_way(holder)
            break
        time.sleep(0.02)
    return outcome


def _in_the_way(holder: lease_.Holder) -> str:
    """What a holder is that will not deliver by itself."""
    if holder.stopped:
        return f"is stopped: `kill -CONT {holder.pid}` lets it go on, --takeover delivers without it"
    if holder.hung and holder.since is not None:
        ago = output.age(time.time() - holder.since)
        return f"has waited for its target for {ago}: --takeover delivers without it"
    return ""


def _tidy(job: Job, journal: Journal) -> None:
    """What the keeper of a service does: the marks reach the medium, what is settled is pruned."""
    keep = job.way.keep_delivered if job.way is not None else None
    try:
        make_tidy(journal.store, kept(journal) if keep is None else keep, lambda: job.stopping)
    except TROUBLE as error:
        job.notes.append(f"{job.path}: could not be tidied: {error}")


def make_tidy(store: Store, keep: float, stop: Callable[[], bool]) -> int:
    """Sync, prune, give space back, checkpoint if that is due; how many rows were pruned."""
    wal.sync(store)
    pruned = 0
    while not stop() and (count := tidy.prune_slice(store, keep)):
        pruned += count
    while not stop() and tidy.vacuum_slice(store):
        pass
    if wal.file_size(store) > keeper.CHECKPOINT_BYTES:
        wal.checkpoint(store, shrink=True)
    return pruned


# --- all of them -----------------------------------------------------------------------------------------


def groups_of(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs by target: a target is called by one thread at a time."""
    groups: dict[int, list[Job]] = {}
    for job in jobs:
        assert job.way is not None
        groups.setdefault(id(job.way.target), []).append(job)
    return list(groups.values())


def settle_group(jobs: Sequence[Job], deadline: float | None, *, take_over: bool) -> None:
    """One try for each, then a share of the remaining time for those with entries left."""
    for job in jobs:
        settle(job, deadline=deadline, once=len(jobs) > 1, take_over=take_over)
    left = [job for job in jobs if _wants_more(job)] if len(jobs) > 1 else []
    while left:
        job = left.pop(0)
        now = monotonic()
        share = None if deadline is None else now + (deadline - now) / (len(left) + 1)
        if _wants_more(job) and (share is None or share > now):
            settle(job, deadline=share, once=False, take_over=False)


def _wants_more(job: Job) -> bool:
    return job.error is None and job.outcome is Outcome.REMAIN and not job.bell.is_set()


def run(
    jobs: Sequence[Job],
    work: Callable[[list[Job], float | None], None],
    *,
    timeout: float | None,
    watch: Callable[[], None] | None = None,
) -> int | None:
    """Run ``work(group, deadline)`` on a thread per group of ``jobs``. 130 after Ctrl-C, 143 after SIGTERM, else None.

    ``timeout``: seconds for all together. ``watch``: called about ten times a second.
    """
    deadline = None if timeout is None else monotonic() + timeout
    groups = groups_of(jobs)
    threads = [_Worker(work, group, deadline) for group in groups]
    interrupted = None
    try:
        with _sigterm_raises():
            for thread in threads:
                thread.start()
            _wait(threads, deadline, watch)
    except KeyboardInterrupt:
        interrupted = 130
    except Terminated:
        interrupted = 143
    if interrupted is not None:
        for job in jobs:
            job.stop()
        _wait(threads, monotonic(), None)
    _leave_behind(threads)
    for thread in threads:
        if thread.failure is not None:
            raise thread.failure  # a defect of ours, or the target's close()
    return interrupted


class _Worker(threading.Thread):
    """``finished`` says when it is done: CPython 3.11 takes a thread for dead whose join() a signal interrupted."""

    def __init__(
        self, work: Callable[[list[Job], float | None], None], group: list[Job], deadline: float | None
    ) -> None:
        super().__init__(name="lastwords-cli", daemon=True)
        self.group = group
        self.finished = threading.Event()
        self.failure: BaseException | None = None
        self._work = work
        self._deadline = deadline

    def run(self) -> None:
        try:
            self._work(self.group, self._deadline)
            close_target(self.group)
        except BaseException as error:  # for the main thread
            self.failure = error
        finally:
            self.finished.set()


def close_target(group: Sequence[Job]) -> None:
    """The target's own ``close``; what it raises is a note, the entries are settled or not all the same."""
    from lastwords.runtime.guard import delivering

    assert group[0].way is not None
    try:
        with group[0].as_owner(), delivering():
            group[0].way.target.close()
    except Exception as error:  # the target's own code
        group[0].notes.append(f"closing the target: {type(error).__name__}: {error}")


def _wait(threads: Sequence[_Worker], deadline: float | None, watch: Callable[[], None] | None) -> None:
    for thread in threads:
        while not thread.finished.is_set() and (deadline is None or monotonic() < deadline + GRACE_SECONDS):
            thread.finished.wait(0.05)
            if watch is not None:
                watch()


def _leave_behind(threads: Sequence[_Worker]) -> None:
    for thread in threads:
        if thread.finished.is_set():
            continue
        output.leave_behind(thread.finished)
        for job in thread.group:
            if job.outcome is None or job.outcome is Outcome.REMAIN:
                job.stop()
                job.outcome = Outcome.REMAIN
                job.last_error = "the target did not return in time"


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def terminate(*_: object) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread: an embedding program or a test
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
