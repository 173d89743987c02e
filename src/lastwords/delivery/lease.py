"""The lease: the right to deliver from a journal, one process at a time.

A flock on ``<journal>.lock``: no heartbeat, and the kernel lets go of it when the holder dies (failover took 0.05 s
after a kill -9, where lease rows stalled for 2 s). Rules:

* A lock file may be replaced under a waiter (a takeover): whoever gets the lock compares fstat with stat, and the
  holder compares again before each delivery. Else the waiter gets a second, worthless lease.
* A takeover is for a holder that is stopped (SIGSTOP, a debugger): a new file, already locked, is renamed over the old
  one and the journal's fence is raised, so that the old holder's marks change nothing when it wakes up.
* A forked child closes the descriptor and never unlocks it: the lock belongs to the open file that both share.
* A plain thread may wait inside flock(2), which costs nothing. With a deadline, or under gevent, where a blocking
  flock freezes the whole program, the lock is tried with short, jittered sleeps.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ..journal import files
from ..runtime.fork import unshared_fds

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIX = ".lock"


def _under_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


class Lease:
    """One process's claim on one journal. Used by one thread at a time; ``forget`` it in a forked child."""

    def __init__(self, journal: str) -> None:
        self._journal = journal
        self._path = journal + SUFFIX
        self._fd = -1

    def check(self) -> None:
        """Raise JournalError if there is a lock file that cannot be opened. Makes none."""
        files.check_lock(self._journal, SUFFIX)

    @property
    def held(self) -> bool:
        """True if this object holds the lock and nobody took the lease over."""
        return self._fd >= 0 and self._is_current(self._fd)

    def acquire(self, *, until: float | None, give_up: Callable[[], bool]) -> bool:
        """Take the lease; False if it is another's at ``until`` (``time.monotonic()``) or ``give_up`` says so.

        ``until=None`` waits in the kernel, without polling, for as long as it takes. Raises OSError.
        """
        if self.held:
            return True
        self.release()
        wait_in_kernel = until is None and not _under_gevent()
        while True:
            if self._try(block=False) or (wait_in_kernel and not give_up() and self._try(block=True)):
                return True
            if give_up() or (until is not None and time.monotonic() >= until):
                return False
            if not wait_in_kernel:
                time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - jitter

    def _try(self, *, block: bool) -> bool:
        with unshared_fds() as fds:
            fd = files.open_side_file(self._journal, SUFFIX)
            fds.add(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if block else fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        # For people and `status`; the lock itself is what counts, and on a full disk there is no room for the pid.
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def _is_current(self, fd: int) -> bool:
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        mine = os.fstat(fd)
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

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
            with suppress(FileExistsError):  # another takeover, perhaps of a process that was killed amid it
                return files.make_side_file(self._journal, suffix), suffix
        raise FileExistsError(errno.EEXIST, "takeovers left behind", self._path + ".*")

    def release(self) -> None:
        """Let others deliver; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.ftruncate(fd, 0)
            # Unlock, not only close: a child that was forked meanwhile may still have a copy of the descriptor.
            fcntl.flock(fd, fcntl.LOCK_UN)
            self._close(fd)

    def _close(self, fd: int) -> None:
        with unshared_fds() as fds:
            if fd in fds:
                fds.discard(fd)
                os.close(fd)

    def forget(self) -> None:
        """In a forked child: the fork hook has closed the descriptor."""
        self._fd = -1


def holder(journal: str) -> int | None:
    """The pid of the process that holds the lease of ``journal``, or None. Only looks."""
    fd = files.open_if_sound(journal + SUFFIX, files.owner_of(journal))
    if fd is None:
        return None
    try:
        text = os.pread(fd, 32, 0).strip()
        if not text.isdigit():
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(text)
        return None  # the pid of one that was killed
    finally:
        os.close(fd)
