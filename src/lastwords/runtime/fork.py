"""Forks: what is closed before one, and what a child forgets.

ONE fork hook over a WeakSet, because hooks cannot be unregistered.

Theory of operation
-------------------
Every SQLite connection is closed before a fork and reopened lazily on both sides.
One merely left open makes the child's fresh connection believe that it already holds
the SHARED lock; the next close takes itself for the last user's and unlinks the live WAL: 111 records were
acknowledged and 11 survived. The hook takes logging's module lock before any member's (the
other order deadlocked with dictConfig within 500 forks) and each member's lock with a short
timeout, stepping back from all of them when one is taken: garbage collection may run
``logging._removeHandlerRef``, which wants logging's lock, in a thread that holds a
journal's lock.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from .clock import monotonic
from .descriptor import Unshared
from .exit import forget_in_child
from .lock import is_mine_told, new_lock, renew_all
from .members import alive
from .native import sleep
from .stderr import say

if TYPE_CHECKING:
    from collections.abc import Iterator


class Forkable(Protocol):
    """What takes part in a fork."""

    @property
    def fork_lock(self) -> Any:
        """An RLock (``acquire(timeout=)``, ``release``) that is held across the fork."""

    def before_fork(self) -> None:
        """Close what must not be shared. Runs with ``fork_lock`` held; must not log."""

    def after_fork_in_parent(self) -> None:
        """Go on. Runs without any lock."""

    def after_unseen_fork(self) -> None:
        """:meth:`before_fork` has not run: leave behind what it would have closed. ``after_fork_in_child`` follows."""

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads and work. Runs with ``fork_lock`` held."""


_forkables: weakref.WeakSet[Any] = weakref.WeakSet()
_unshared = Unshared()


class _Locks:
    """Where eventlet does not find them: it replaces RLocks by such as only greenlets of one thread can wait for.

    Its ``monkey_patch`` goes through modules, lists, dicts and attributes, but not into slots.
    """

    __slots__ = ("fds", "gate")

    def __init__(self) -> None:
        self.fds = new_lock()  # descriptors that are opened and closed
        self.gate = new_lock()  # forks, and imports by threads of ours


_locks = _Locks()


def follow_forks(member: Forkable) -> None:
    """Take ``member`` into the fork hook for as long as it lives."""
    _forkables.add(member)


class ForksWait:
    """A fork waits while its ``fork_lock`` is held: for work on a connection without the lock of its store.

    SQLite's own mutexes are copied by a fork as they are, and one that is taken would never be given back in the child.
    The holder must not wait for a store's lock, or a signal handler that forks amid a commit would never get both.
    """

    def __init__(self) -> None:
        self.fork_lock = new_lock()
        follow_forks(self)

    def before_fork(self) -> None:
        """See :class:`Forkable`: nothing is going on."""

    def after_fork_in_parent(self) -> None:
        """See :class:`Forkable`."""

    def after_unseen_fork(self) -> None:
        """See :class:`Forkable`: what was going on ends with a thread that is not here."""

    def after_fork_in_child(self) -> None:
        """See :class:`Forkable`."""


@contextmanager
def unshared_fds() -> Iterator[Unshared]:
    """The descriptors that a forked child closes (never unlocks: it shares the parent's lock).

    Open or close one inside this context only: it excludes a fork between ``open`` and the entry in the set,
    which would leave a locked descriptor behind in the child.
    """
    with _locks.fds:
        yield _unshared


IMPORT_SECONDS = 1.0  # that a fork waits for a thread of ours which may be importing

_inside: list[int] = []  # threads that may be importing


@contextmanager
def importing() -> Iterator[None]:
    """What a thread of ours may import for the first time, it imports in here; a fork waits for that, for a while.

    A module that another thread was just importing is locked in the child for ever (importlib's module locks are not
    made anew after a fork): whoever imports it there waits for a thread that does not exist. A prefork server forks
    right after its handlers were made, when a courier delivers for the first time, and its client library imports the
    rest of itself.
    """
    me = threading.get_ident()
    if me in _inside:
        yield
        return
    with _locks.gate:  # not while somebody forks
        _inside.append(me)
    try:
        yield
    finally:
        _inside.remove(me)


def _wait_for_imports(until: float) -> None:
    me = threading.get_ident()
    while monotonic() < until and any(thread != me for thread in _inside):
        sleep(0.002)


class _Fork:
    """One fork under way: what it holds. A signal handler may fork during another fork of its thread."""

    def __init__(self) -> None:
        self.locks: list[Any] = []
        self.members: list[Any] = []
        self.gate = False

    def hold(self, until: float) -> bool:
        self.gate = _locks.gate.acquire(timeout=IMPORT_SECONDS)
        _wait_for_imports(until)
        logging_lock = logging._lock  # type: ignore[attr-defined]
        logging_lock.acquire()
        self.locks.append(logging_lock)
        members = alive(_forkables)
        for lock in [_locks.fds, *(m.fork_lock for m in members)]:
            if not lock.acquire(timeout=0.05):
                return False
            self.locks.append(lock)
        if any(member not in members for member in alive(_forkables)):
            return False  # made meanwhile by another thread
        self.members = members
        for member in members:
            try:
                member.before_fork()
            except Exception as error:  # a hook that raises leaves the locks to nobody
                say(f"while preparing a fork: {error!r}")
        return True

    def let_go(self) -> None:
        while self.locks:
            self.locks.pop().release()
        if self.gate:  # last; and never kept while waiting: whoever imports may hold a journal's lock
            self.gate = False
            _locks.gate.release()


class _Forks(threading.local):
    def __init__(self) -> None:
        self.under_way: list[_Fork] = []


_forks = _Forks()


_pid = os.getpid()


def notice() -> None:
    """Begin anew if this process was forked by C code; before anything is used that its parent may have had."""
    if os.getpid() != _pid:
        _begin_unseen()


def _begin_unseen() -> None:
    """None of Python's hooks has run: whoever held a lock is not here, and what is open is the parent's."""
    global _pid  # noqa: PLW0603
    _pid = os.getpid()  # first: what is below asks, too
    renew_all()
    if not is_mine_told(logging._lock):  # type: ignore[attr-defined]
        # Those of all handlers, among them that of a target which the parent was just calling.
        getattr(logging, "_after_at_fork_child_reinit_locks", lambda: None)()
    _forks.under_way.clear()
    _inside.clear()
    forget_in_child()
    _unshared.close_all()
    members = alive(_forkables)
    for member in members:
        member.after_unseen_fork()
    for member in members:
        member.after_fork_in_child()
    if members:
        say(
            "this process was forked by C code, without Python's fork hooks, and begins anew; for uWSGI set"
            " py-call-uwsgi-fork-hooks (or lazy-apps), else what its parent was just writing may be in the way"
        )


def _before_fork() -> None:
    notice()
    fork = _Fork()
    _forks.under_way.append(fork)
    until = monotonic() + IMPORT_SECONDS
    while not fork.hold(until):
        fork.let_go()
        sleep(0.001)


def _after_fork_in_parent() -> None:
    fork = _forks.under_way.pop()
    fork.let_go()
    for member in fork.members:
        member.after_fork_in_parent()


def _after_fork_in_child() -> None:
    global _pid  # noqa: PLW0603
    if not _forks.under_way:  # uWSGI's py-call-osafterfork
        _begin_unseen()
        return
    _pid = os.getpid()
    # logging's own hook, registered before ours, has already made its lock anew: nothing to release.
    for fork in _forks.under_way:
        fork.locks = [lock for lock in fork.locks if lock is not logging._lock]  # type: ignore[attr-defined]
    fork = _forks.under_way.pop()
    forget_in_child()
    renew_all()  # another thread may have one that no member stands for, or one that was just being made
    _unshared.close_all()
    _inside.clear()
    for member in fork.members:
        member.after_fork_in_child()
    fork.let_go()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
