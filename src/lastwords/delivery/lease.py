"""The lease: the right to deliver from a journal, one process at a time.

A flock on ``<journal>.lock``: no heartbeat, and the kernel lets go of it when the holder dies (failover took 0.05 s
after a kill -9, where lease rows stalled for 2 s). Rules:

* A lock file may be replaced under a waiter (a takeover): whoever gets the lock compares fstat with stat, and the
  holder compares again before each delivery. Otherwise the waiter would hold a second lease that excludes nobody.
* A takeover is for a holder that is stopped (SIGSTOP, a debugger): a new file, already locked, is renamed over the old
  one and the journal's fence is raised, so that the old holder's marks change nothing when it wakes up.
* A forked child closes the descriptor and never unlocks it: the lock belongs to the open file description, which both
  share.
* Nobody waits inside flock(2): after a takeover the file that a waiter has open is not the lock any more, and if its
  holder stays stopped nothing would ever wake the waiter. The lock is tried with short, jittered sleeps, which become
  longer while another one delivers.
"""

import errno
import fcntl
import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ..journal import files
from ..runtime.clock import about, monotonic
from ..runtime.fork import unshared_fds
from ..runtime.native import sleep

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIX = ".lock"
DELIVERING, WAITING = "delivering", "waiting"
SLEEP_SECONDS = 0.05  # between two tries, at most: with a deadline, and at first
PATIENT_SECONDS = 1.0  # without one, in the end
NOTE_SECONDS = 1.0  # between two notes of the same
NOTE_BYTES = 64  # of the lock file
HUNG_SECONDS = 60.0  # of one call
_NOTE = rb"(\d{1,10})\n(?:(delivering|waiting) (\d{1,12}\.\d+)\n)? *$"


class Lease:
    """One process's claim on one journal. Used by one thread at a time; ``forget`` it in a forked child."""

    def __init__(self, journal: str) -> None:
        self._journal = journal
        self._path = journal + SUFFIX
        self._fd = -1
        self._noted, self._noted_at = "", 0.0

    def check(self) -> None:
        """Raise JournalError if there is a lock file that cannot be opened. Makes none."""
        files.check_lock(self._journal, SUFFIX)

    @property
    def held(self) -> bool:
        """True if this object holds the lock and nobody took the lease over."""
        return self._fd >= 0 and self._is_current(self._fd)

    def acquire(
        self, *, until: float | None, give_up: "Callable[[], bool]", pause: "Callable[[float], object]" = sleep
    ) -> bool:
        """Take the lease; False if it is another's at ``until`` (``time.monotonic()``) or ``give_up`` says so.

        ``until=None`` waits for as long as it takes, and looks less and less often. ``pause`` sleeps; if it says that
        it was woken, the lease is tried often again. Raises OSError.
        """
        if self.held:
            return True
        self.release()
        longest = SLEEP_SECONDS
        while not self._try():
            if give_up() or (until is not None and monotonic() >= until):
                return False
            if pause(about(longest / 10, longest)):
                longest = SLEEP_SECONDS
            elif until is None:
                longest = min(longest * 1.2, PATIENT_SECONDS)
        return True

    def _try(self) -> bool:
        with unshared_fds() as fds:
            fd = files.open_side_file(self._journal, SUFFIX)
            fds.add(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close(fd)
            return False
        except BaseException:
            self._close(fd)
            raise
        if not self._is_current(fd):
            self._close(fd)
            return False
        self._own(fd)
        return True

    def _own(self, fd: int) -> None:
        self._fd = fd
        self._noted, self._noted_at = "", 0.0
        self.note(DELIVERING, time.time())

    def note(self, doing: str, at: float) -> None:
        """Tell `status` what the holder does, at most once a second: ``DELIVERING`` since, or ``WAITING`` until ``at``.

        Unix seconds. For people; the lock itself is what counts, and on a full disk there is no room for it.
        """
        if doing == self._noted and abs(at - self._noted_at) < NOTE_SECONDS:
            return
        self._noted, self._noted_at = doing, at
        if not self._is_ours(self._fd):
            return  # somebody has closed it: what is written would be in a file of theirs
        with suppress(OSError):
            os.pwrite(self._fd, f"{os.getpid()}\n{doing} {at:.3f}\n".ljust(NOTE_BYTES).encode(), 0)

    def _is_current(self, fd: int) -> bool:
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        return self._is_ours(fd) and os.path.samestat(os.fstat(fd), there)

    def _is_ours(self, fd: int) -> bool:
        with unshared_fds() as fds:
            return fd in fds

    def take_over(self) -> None:
        """Become the holder whoever holds it; the caller then raises the journal's fence. Raises OSError."""
        self.release()
        with unshared_fds() as fds:
            fd, suffix = self._open_new()
            fds.add(fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.rename(self._journal + suffix, self._path)
        self._own(fd)

    def _open_new(self) -> tuple[int, str]:
        """Short names: they are to fit wherever SQLite's ``-journal`` does."""
        for number in range(10):
            suffix = f"{SUFFIX}.{number}"
            with suppress(FileExistsError):  # another takeover, perhaps of a process that was killed during it
                return files.make_side_file(self._journal, suffix), suffix
        raise FileExistsError(errno.EEXIST, "takeovers left behind", self._path + ".*")

    def release(self) -> None:
        """Let others deliver; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and self._is_ours(fd):  # else somebody has closed it, and the lock is gone with it
            with suppress(OSError):
                os.ftruncate(fd, 0)
            # Unlock, not only close: a child that was forked meanwhile may still have a copy of the descriptor.
            fcntl.flock(fd, fcntl.LOCK_UN)
            self._close(fd)

    def _close(self, fd: int) -> None:
        with unshared_fds() as fds:
            fds.close(fd)

    def forget(self) -> None:
        """In a forked child: the fork hook has closed the descriptor."""
        self._fd = -1


class Holder(NamedTuple):
    """The process that has the lease.

    ``since``: of the call that it is in; ``next_attempt``: after a failure; unix seconds.
    """

    pid: int
    stopped: bool  # by SIGSTOP or a debugger
    since: float | None
    next_attempt: float | None

    @property
    def hung(self) -> bool:
        """True if its target has not come back for long."""
        return self.since is not None and time.time() - self.since > HUNG_SECONDS

    @property
    def state(self) -> str:
        """delivering, waiting, stopped or hung."""
        if self.stopped:
            return "stopped"
        return "waiting" if self.next_attempt is not None else "hung" if self.hung else "delivering"


def look(journal: str) -> Holder | None:
    """The process that holds the lease of ``journal``, or None. Only looks."""
    fd = files.open_if_sound(journal + SUFFIX, files.owner_of(journal))
    if fd is None:
        return None
    try:
        found = re.match(_NOTE, os.pread(fd, NOTE_BYTES, 0))
        if found is None:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, doing, at = int(found[1]), (found[2] or b"").decode(), float(found[3] or 0)
            since, until = (at if doing == DELIVERING else None), (at if doing == WAITING else None)
            return Holder(pid, _is_stopped(pid), since, until)
        return None  # the pid of one that was killed
    finally:
        os.close(fd)


def holder(journal: str) -> int | None:
    """The pid of the process that holds the lease of ``journal``, or None. Only looks."""
    found = look(journal)
    return None if found is None else found.pid


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[:1][0] in (b"T", b"t")
    except (OSError, IndexError):
        return False  # gone meanwhile, or a system without /proc
