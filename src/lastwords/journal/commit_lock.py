"""The commit lock: a flock on ``<journal>.commit`` around every write and checkpoint.

But for those that go without: commits into a snapshot (see ``snapshot``), and checkpoints that do not begin the WAL
anew.

It queues processes fairly (SQLite's busy handler starves: the slowest of four got 0.00 of the fastest) and it keeps
commits and checkpoints apart: SQLite 3.7.0 to 3.51.2 has the WAL-reset bug, a commit racing a checkpoint of another
connection.

Processes that write at once take turns: one that comes back with its next commit would find the lock free before any
that sleeps between two tries. So while it is crowded, a process that wants the lock goes through a turnstile first, a
POSIX lock on one byte of the same file, and keeps it until the lock is its own. There is one in the turnstile, and it
is next.

A holder that does not move for ``timeout`` seconds is taken for stopped (SIGSTOP, a debugger), so that it cannot freeze
its siblings. A stopped *commit* is not waited for any longer: SQLite's own lock still guards the file. A stopped
*checkpoint* is, because of that bug; a lock on another byte says which of the two it is, and vanishes with
a killed process.
"""

from __future__ import annotations

import errno
import fcntl
import os

from ..errors import JournalBusy
from ..runtime.clock import about, monotonic
from ..runtime.descriptor import Descriptor
from ..runtime.native import sleep
from . import files

SUFFIX = ".commit"
PASS_BY_SECONDS = 10.0  # between two waits for a holder that does not move
TURNSTILE = 1  # the byte that whoever goes next has locked
CHECKPOINT = 2  # the byte that a checkpoint has locked
_own_checkpoints: set[str] = set()  # the journals of this process: its own POSIX locks do not keep it out
CROWDED = 20  # turns without waiting, after which the turnstile is not used any more
TURN_SECONDS = 0.001  # within which the last holder may come back without
NEXT_SECONDS = 0.0001  # between two tries of the one in the turnstile
QUEUE_SECONDS = 0.0004  # and of those behind it


class CommitLock:
    """One store's claim. The store's lock is held around every call; closed before a fork, opened lazily after it."""

    def __init__(self, journal: str, timeout: float) -> None:
        self._journal = journal
        self._timeout = timeout
        self._fd = -1
        self._file: Descriptor | None = None
        self._pass_by_until = 0.0
        self._crowded = 0
        self._turn_ends = 0.0
        self._blocked_until = 0.0  # the turnstile, by one who is stopped in it
        self.held = False  # go on: it is ours, or not waited for
        self.owned = False  # it is ours

    @property
    def is_open(self) -> bool:
        """True while there is a descriptor, which must not be when the process forks."""
        return self._fd >= 0

    def open(self) -> None:
        """Have the file open. Raises FileNotFoundError without a journal, else JournalError. Idempotent."""
        if self._file is not None and not self._file.is_ours():  # somebody has closed it
            self._file, self._fd = None, -1
        if self._fd < 0:
            self._fd = files.open_side_file(self._journal, SUFFIX)
            self._file = Descriptor(self._fd)

    def descriptor(self) -> int | None:
        """To read and write what else is in that file; None if it is not open."""
        return self._fd if self._is_ours() else None

    def hold(self) -> None:
        """Queue up. Reentrant. Raises OSError, JournalError; JournalBusy if one is stopped inside a checkpoint."""
        if self.held:
            return
        self.open()
        self.owned = not (self._crowded and monotonic() > self._turn_ends) and self._try()
        if not self.owned:
            self.owned = self._queue()
            self._turn_ends = monotonic() + TURN_SECONDS
        self.held = True

    def _try(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._pass_by_until = 0.0
        return True

    def _try_byte(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                return False
            raise
        return True

    def _queue(self) -> bool:
        """True if the lock is ours, False if its holder is not waited for."""
        now = monotonic()
        if now < self._pass_by_until:  # found stopped a moment ago: wait for it once, not for each record
            return self._try()
        turn = now < self._blocked_until or self._try_byte(TURNSTILE)
        try:
            if turn and self._try():
                self._crowded = max(0, self._crowded - 1)
                return True
            self._crowded = CROWDED
            return self._wait(turn=turn)
        finally:  # not ours, perhaps: then it does nothing
            self._give_byte(TURNSTILE)

    def _give_byte(self, byte: int) -> None:
        if self._is_ours():
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)

    def _wait(self, *, turn: bool) -> bool:
        began = monotonic()
        while True:
            pause = NEXT_SECONDS if turn else QUEUE_SECONDS
            sleep(about(pause / 2, pause * 1.5))
            waited = monotonic() - began
            turn = turn or self._try_byte(TURNSTILE)
            # Whoever is in the turnstile may be stopped, too.
            if (turn or waited > self._timeout / 2) and self._try():
                if not turn:
                    self._blocked_until = monotonic() + PASS_BY_SECONDS
                    self._crowded = 0
                return True
            if waited > self._timeout:
                self._give_up()
                return False

    def _give_up(self) -> None:
        if self._journal in _own_checkpoints or not self._try_byte(CHECKPOINT):
            raise JournalBusy(self._journal, "another process is stopped inside a checkpoint", "see `ps` for state T")
        self._give_byte(CHECKPOINT)
        self._pass_by_until = monotonic() + PASS_BY_SECONDS

    def drop(self) -> None:
        """Let the next one in."""
        if self.held:
            self.held = self.owned = False
            if self._is_ours():
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _is_ours(self) -> bool:
        return self._file is not None and self._file.is_ours()

    def mark_checkpointing(self, *, running: bool) -> None:
        """Tell those who wait what they wait for."""
        if running:
            _own_checkpoints.add(self._journal)
            self._try_byte(CHECKPOINT)
        else:
            self._give_byte(CHECKPOINT)
            _own_checkpoints.discard(self._journal)

    def close_if_replaced(self) -> None:
        """Let the next use open the file that is at the path now: two locks would be none."""
        if self.held or not self._is_ours():
            return
        try:
            if os.path.samestat(os.fstat(self._fd), os.stat(self._journal + SUFFIX)):
                return
        except FileNotFoundError:
            pass
        self.close()

    def close(self) -> None:
        """Give up the descriptor, and the lock with it."""
        file, self._file, self._fd, self.held, self.owned = self._file, None, -1, False, False
        if file is not None:
            file.close()
