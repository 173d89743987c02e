"""The courier that stays: many journals, whose processes only commit, and few threads.

Theory of operation
-------------------
The main thread only looks. Now and then, or when a file event rings, it compares the sizes and times of each journal's
file and ``-wal`` with those of the last look: what did not change has nothing new, and is not opened. So an idle
journal costs two system calls a look, no connection and no thread.

A journal with something to do is *due*. Journals with the same target form a *line*, which has a daemon thread only
while one of them is due: a target is called by one thread at a time, and one that hangs holds up its own line alone.
Within a line each journal gets one try, for ``SLICE_SECONDS`` at most while others wait, so that a flood in one of them
does not starve the others. A journal whose target fails waits longer and longer before its next try; the attempts
against its head are in the journal, so that poison is told from an outage as ever.

Delivery is that of ``flush``: lease, fencing, marks (deliver.py). What another live process delivers from is left to it
and looked at again later.
"""

from __future__ import annotations

import os
import random
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from lastwords.delivery.loop import Outcome
from lastwords.errors import JournalError
from lastwords.runtime.bell import Bell

from ...runtime.clock import monotonic
from .. import output
from . import deliver, together
from .job import Job, inspect

if TYPE_CHECKING:
    from collections.abc import Callable

    from .sources import Source

SLICE_SECONDS = 2.0  # of one journal, while others of its line are due
BUSY_SECONDS = 5.0  # until a journal is looked at again from which another process delivers
RETRY_MIN, RETRY_MAX = 1.0, 60.0  # seconds between tries, unless the handler of a configuration says otherwise

Signature = tuple[int, ...]


class Journals(Protocol):
    """Which journals there are now."""

    def paths(self) -> list[str]:
        """Absolute paths."""


def signature(path: str) -> Signature:
    """What changes when something is committed: inode, size and time of the file and of its ``-wal``."""
    found: list[int] = []
    for name in (path, path + "-wal"):
        try:
            status = os.stat(name)
        except OSError:
            found.append(0)
        else:
            found += [status.st_ino, status.st_size, status.st_mtime_ns]
    return tuple(found)


@dataclass(slots=True)
class Watched:
    """One journal and what is known of it. Its line's thread changes it while ``running``, else the main one."""

    path: str
    job: Job | None = None
    seen: Signature | None = None  # None: to be looked at, changed or not
    running: bool = False
    ended: bool = False  # it had the try that the end owes it
    not_before: float = 0.0  # monotonic()
    failures: int = 0
    trouble: str = ""  # what was said last


@dataclass(slots=True)
class Line:
    """The journals of one target, and the thread that delivers them."""

    source: Source
    due: deque[Watched] = field(default_factory=deque)
    current: Job | None = None
    equipped: Job | None = None  # one whose target was built
    finished: threading.Event | None = None  # of the thread, None: there is none
    closing: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Resident:
    """Delivers from ``journals`` by ``source`` until :meth:`stop`. ``drain_timeout``: seconds, for the end."""

    def __init__(
        self, source: Source, journals: Journals, *, drain_timeout: float, say: Callable[[str], None] = output.complain
    ) -> None:
        self.bell = Bell()  # something changed, or a signal came
        self.delivered = 0  # by all journals so far
        self._source = source
        self._journals = journals
        self._drain_timeout = drain_timeout
        self._say = say
        self._watched: dict[str, Watched] = {}
        self._lines: dict[str, Line] = {}
        self._deadline: float | None = None  # of the end

    @property
    def paths(self) -> list[str]:
        """The journals that are known now."""
        return list(self._watched)

    # --- the main thread -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Find journals, and put those that changed on their lines."""
        there = self._journals.paths()
        for path in there:
            if path not in self._watched:
                self._watched[path] = Watched(path)
        for path in set(self._watched) - set(there):
            if not self._watched[path].running:
                del self._watched[path]
        now = monotonic()
        for watched in self._watched.values():
            waits = watched.running or watched.ended or watched.not_before > now
            if not waits and watched.seen != signature(watched.path):
                self._put(watched)

    def _put(self, watched: Watched) -> None:
        try:
            name = self._source.line(watched.path)
        except JournalError as error:
            self._trouble(watched, str(error))
            return
        except output.Misconfigured as error:  # of a configuration that does not name this journal
            self._trouble(watched, error.message)
            return
        line = self._lines.setdefault(name, Line(self._source))
        watched.running = True
        watched.ended = self._deadline is not None
        with line.lock:
            line.due.append(watched)
        self._start(line)

    def _start(self, line: Line) -> None:
        with line.lock:
            if line.finished is not None:
                return
            line.finished = threading.Event()
        threading.Thread(target=self._work, args=(line,), name="lastwords-line", daemon=True).start()

    def next_look(self) -> float:
        """Seconds until a journal that failed is to be tried again; infinite if there is none."""
        now = monotonic()
        waits = [w.not_before - now for w in list(self._watched.values()) if not w.running and w.not_before > now]
        return min(waits, default=float("inf"))

    def reload(self, source: Source, journals: Journals) -> None:
        """Go on with another configuration. A try that is under way ends by the old one; its lease keeps order."""
        for line in self._lines.values():
            self._retire(line)
        self._source, self._journals = source, journals
        self._watched, self._lines = {}, {}

    def _retire(self, line: Line) -> None:
        with line.lock:
            line.due.clear()
            line.closing = True
        self._start(line)

    def stop(self) -> int:
        """Deliver what is pending within ``drain_timeout`` and end; how many journals still have entries."""
        self._deadline = monotonic() + self._drain_timeout
        for watched in self._watched.values():
            watched.not_before = 0.0
        for line in self._lines.values():
            if line.current is not None and line.current.delivery is not None:
                line.current.delivery.deadline = self._deadline
        self._last_tries(self._deadline)
        lines = list(self._lines.values())  # the last look may have found the first journal of one
        for line in lines:
            line.closing = True
            self._start(line)
        for line in lines:
            if line.finished is not None and not line.finished.wait(max(0.0, self._deadline - monotonic())):
                self._give_up(line)
        return sum(w.running or w.failures > 0 or w.seen is None for w in self._watched.values())

    def _last_tries(self, deadline: float) -> None:
        """Each journal that changed gets one try that begins after now: one under way may have read its last entry."""
        while (left := deadline - monotonic()) > 0:
            idle = not self._running()
            self.look()
            if self._running():
                self.bell.wait(left)
            elif idle:
                return

    def _running(self) -> bool:
        return any(watched.running for watched in self._watched.values())

    def _give_up(self, line: Line) -> None:
        if line.current is not None:
            line.current.stop()
        assert line.finished is not None
        if not line.finished.wait(together.GRACE_SECONDS):
            output.leave_behind(line.finished)

    # --- a line's thread -------------------------------------------------------------------------------------

    def _work(self, line: Line) -> None:
        finished = line.finished
        assert finished is not None
        try:
            while True:
                with line.lock:
                    closing = line.closing
                    if not line.due:
                        if not closing:
                            line.finished = None
                        break
                    watched = line.due.popleft()
                job = watched.job = watched.job or Job(watched.path)
                self._try(line, watched, job)
                watched.running = False
                self.bell.ring()
            if closing and line.equipped is not None:
                together.close_target([line.equipped])
        finally:
            finished.set()

    def _try(self, line: Line, watched: Watched, job: Job) -> None:
        before = signature(watched.path)  # what comes from here on changes it
        looked, to_do = inspect(watched.path)
        job.destination = looked.destination
        if looked.error is not None and not to_do:
            self._failed(watched, str(looked.error), looked.pending)
            return
        if not to_do:
            watched.seen = before
            self._works_again(watched)
            return
        self._deliver(line, watched, job)
        if job.error is not None:
            self._failed(watched, str(job.error), looked.pending)
        elif job.outcome is Outcome.BUSY:
            watched.not_before = monotonic() + BUSY_SECONDS
            if job.holder and job.in_the_way:
                self._trouble(watched, f"the process that delivers (pid {job.holder.pid}) {job.in_the_way}", key="busy")
        elif job.outcome is Outcome.REMAIN and job.last_error is not None:
            self._failed(watched, job.last_error, job.remaining or 0)
        else:  # done, or its slice is over: what is left is found by the next look
            watched.seen = before if job.outcome is Outcome.DONE else None
            watched.ended = watched.ended and job.outcome is Outcome.DONE
            self._works_again(watched)

    def _deliver(self, line: Line, watched: Watched, job: Job) -> None:
        job.error = job.outcome = None
        try:
            if job.way is None:
                job.way = line.source.way(job)
                line.equipped = job
        except JournalError as error:
            job.error = error
            return
        except output.Misconfigured as error:
            job.error = JournalError(watched.path, error.message, "see --config")
            return
        if job.delivery is not None:
            job.delivery.last_error = None  # else an old failure would be taken for one of this try
        had = job.delivered
        line.current = job
        try:
            deliver.settle(job, deadline=self._until(line), once=True, take_over=False)
        finally:
            line.current = None
        self.delivered += job.delivered - had
        for note in job.notes:
            self._say(f"{watched.path}: {note}")
        job.notes.clear()

    def _until(self, line: Line) -> float | None:
        if line.due:
            end = monotonic() + SLICE_SECONDS
            return end if self._deadline is None else min(end, self._deadline)
        return self._deadline

    # --- what is said ----------------------------------------------------------------------------------------

    def _failed(self, watched: Watched, why: str, pending: int) -> None:
        watched.seen = None
        watched.failures += 1
        knobs = {} if watched.job is None or watched.job.way is None else watched.job.way.knobs
        first, longest = knobs.get("retry_min", RETRY_MIN), knobs.get("retry_max", RETRY_MAX)
        pause = min(longest, first * 2 ** min(watched.failures - 1, 20)) * random.uniform(1.0, 1.25)  # noqa: S311 - jitter
        watched.not_before = monotonic() + pause
        waiting = f"; {output.many(pending, 'entry waits', 'entries wait')}" if pending else ""
        self._trouble(watched, f"cannot be delivered: {why}{waiting}; next attempt in {output.age(pause)}", key=why)

    def _trouble(self, watched: Watched, text: str, key: str | None = None) -> None:
        if (key or text) != watched.trouble:  # once, not every time
            watched.trouble = key or text
            self._say(f"{watched.path}: {text}")

    def _works_again(self, watched: Watched) -> None:
        watched.failures = 0
        if watched.trouble:
            watched.trouble = ""
            self._say(f"{watched.path}: is delivered again")
