"""What is moved into a journal from files that were the journal before: rescues and salvages, a slice at a time.

Rules
-----
* Any thread may take the next step: the keeper, ``flush``, the exit pass, a fork (which finishes, and waits for it).
* The first slice is moved in the same hold of the lock in which the new file is opened, and keeps room for the rest:
  what is logged meanwhile is committed at once, behind it. This process's courier waits, see ``transfer``.
* Several processes may be at the same file, each a slice in turn: how far they are is in the journal. So no lock says
  whose it is, and one that is stopped or killed keeps nobody waiting.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ..journal import files, set_aside, wal
from ..journal.transfer import Rescue
from ..runtime.clock import monotonic
from ..runtime.fork import ForksWait
from ..runtime.native import sleep
from ..runtime.stderr import say
from . import damaged_file, removed_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..append.committer import Committer
    from ..errors import JournalDamaged
    from ..journal.store import Store
    from ..journal.transfer import Transfer

_left_to_parent: list[list[Transfer]] = []  # by forked children: closing a connection there would unlock the parent's


def salvage(path: str, error: JournalDamaged) -> None:
    """For the command line: what a handler does with a damaged file, all of it. Raises ``error`` if it is not ours."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    damaged_file.clear(path, files.identify(path), error)
    store = damaged_file.open_repaired(path, mode)
    try:
        Mover(store).run(None)
    finally:
        store.close()


class Mover:
    """One store's. Thread-safe; fork-safe through the store's lock and the keeper."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: list[Transfer] = []
        self._forks = ForksWait()
        self._look = True  # for what was set aside
        self._told = False  # that the process ends before all is moved
        self._look_again_at = float("inf")  # monotonic()

    @property
    def left(self) -> int:
        """How many entries are still to be moved, at most."""
        return sum(transfer.left for transfer in list(self._under_way))

    def expect(self) -> None:
        """A file was set aside."""
        self._look = True

    def run(
        self, committer: Committer | None, rest: Callable[[float], object] = sleep, *, until: float | None = None
    ) -> None:
        """Move all there is. Raises JournalError and OSError; then call it again later.

        ``until`` (``monotonic()``): what has a marker may be left to the next start from then on. What a removed file
        has dies with this process.
        """
        if monotonic() >= self._look_again_at:
            self._look, self._look_again_at = True, float("inf")
        wal.look_ahead(self._store)
        if self._under_way or self._look or self._store.is_replaced(closely=True):
            while self.step(committer):
                if until is not None and monotonic() >= until and self._may_be_left():
                    return
                rest(0.001)

    def _may_be_left(self) -> bool:
        if any(isinstance(transfer, Rescue) for transfer in self._under_way):
            return False
        if not self._told:
            self._told = True
            say(f"journal {self._store.path}: the time is up: what is left of a damaged file waits for the next start")
        return True

    def step(self, committer: Committer | None) -> bool:
        """Move a slice; True while there is more."""
        with self._forks.fork_lock:
            for transfer in self._under_way[:1]:
                transfer.fetch()
        ready = None
        with self._store.lock:
            begun = removed_file.begin(self._store)
            if begun is not None:  # with its first slice, which is enough for one hold of the lock
                self._under_way.insert(0, begun)  # the rest of an older one comes after what came of it before
                self._look = True  # its renames may have been finished by this opening
            else:
                if self._look:
                    damaged_file.resume(self._store, self._under_way)
                    self._look = False
                if self._under_way and not self._under_way[0].step(self._store):
                    ready = self._under_way[0]
            more = self._store.filling = bool(self._under_way)
        if ready is not None:
            more = self._finish(ready)
        if not more and committer is not None:
            committer.retry()
        return more

    def _finish(self, transfer: Transfer) -> bool:
        """All of one is moved: it reaches the medium before what it came from is given up. True while there is more."""
        wal.sync(self._store)
        with self._store.lock:
            if is_mine := transfer in self._under_way:  # and no other thread was faster
                self._under_way.remove(transfer)
            more = self._store.filling = bool(self._under_way)
        if not is_mine:
            return more
        with self._forks.fork_lock:  # nobody is reading it
            if self._forks.fork_lock.depth() == 1:  # but this thread, if a signal handler has come here amid a read
                transfer.close()
        if not transfer.done(self._store):
            self._look_again_at = min(self._look_again_at, monotonic() + set_aside.LATE_SECONDS)
        return more

    def after_fork_in_child(self) -> None:
        """The parent goes on with its own."""
        if self._under_way:
            _left_to_parent.append(self._under_way)
            self._under_way = []
        self._store.filling = False
