"""Many journals at once, for ``flush`` and ``replay``: threads, one deadline, and what Ctrl-C does.

Theory of operation
-------------------
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
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lastwords.delivery.loop import Outcome

from ...runtime.clock import monotonic
from .. import output
from .deliver import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .job import Job

GRACE_SECONDS = 2.0  # for a delivery that is under way when the time is up


class Terminated(BaseException):
    """SIGTERM."""


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
    threads = [_Group(work, group, deadline) for group in groups]
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


class _Group(threading.Thread):
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


def _wait(threads: Sequence[_Group], deadline: float | None, watch: Callable[[], None] | None) -> None:
    for thread in threads:
        while not thread.finished.is_set() and (deadline is None or monotonic() < deadline + GRACE_SECONDS):
            thread.finished.wait(0.05)
            if watch is not None:
                watch()


def _leave_behind(threads: Sequence[_Group]) -> None:
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
