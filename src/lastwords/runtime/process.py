"""What exists once per process: exit, fork, and the thread-local recursion guard.

Rules
-----
* ONE atexit callback, registered lazily per pid: CPython 3.13 clears the child's
  atexit list after the fork hooks ran, so a registration made in them would be lost.
* ONE deadline for the whole process. The first of atexit, ``close`` or ``flush`` that
  runs while the interpreter ends sets it; nothing moves it afterwards.
* ONE fork hook over a WeakSet, because hooks cannot be unregistered.
* No lock is taken in ``__del__``, and no signal handler is installed.

The fork hook
-------------
Every SQLite connection is closed before a fork and reopened lazily on both sides.
One merely left open makes the child's fresh connection believe that it already holds
the SHARED lock; the next last-user close then unlinks the live WAL: 111 records were
acknowledged and 11 survived. The hook takes logging's module lock first (the other
order deadlocked with dictConfig within 500 forks) and each member's lock with a short
timeout, stepping back from all of them when one is taken: garbage collection may run
``logging._removeHandlerRef``, which wants logging's lock, in a thread that holds a
journal's lock.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Forkable(Protocol):
    """What takes part in a fork."""

    @property
    def fork_lock(self) -> Any:
        """An RLock (``acquire(timeout=)``, ``release``) that is held across the fork."""

    def before_fork(self) -> None:
        """Close what must not be shared. Runs with ``fork_lock`` held; must not log."""

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads and work. Runs with ``fork_lock`` held."""


class Finisher(Protocol):
    """What wants to end in good order when the process does."""

    drain_timeout: float

    def finish(self, deadline: float) -> None:
        """Stop at ``deadline`` (``time.monotonic()``); returns at once."""

    def join(self, deadline: float) -> None:
        """Wait for the end, not beyond ``deadline``."""


# --- stderr ---------------------------------------------------------------------------------------


def say(text: str) -> None:
    """One line on stderr. Trouble inside a handler must not go through logging (CPython gh-91555)."""
    stream = sys.stderr
    if stream is None:  # pythonw-like embedders and some daemons
        return
    try:
        stream.write(f"lastwords: {text}\n")
        stream.flush()
    except (OSError, ValueError, RuntimeError):
        return  # nobody reads stderr any more; stats() and `lastwords status` still tell


# --- recursion guard ----------------------------------------------------------------------------


class _Guard(threading.local):
    depth = 0


_guard = _Guard()


def is_delivering() -> bool:
    """True on a thread that is inside a target right now: what it logs enters no journal.

    Module-wide on purpose: with a guard per handler two proxies play ping-pong with one record.
    """
    return _guard.depth > 0


@contextmanager
def delivering() -> Iterator[None]:
    """Mark this thread as being inside a target. Nests."""
    _guard.depth += 1
    try:
        yield
    finally:
        _guard.depth -= 1


# --- whether threads may be started ----------------------------------------------------------------

# CPython 3.12.0 to 3.12.2 cannot start a thread once atexit callbacks run (gh-113964), so there a
# courier is started early; elsewhere it starts with the first record.
THREADS_END_EARLY = (3, 12, 0) <= sys.version_info[:3] <= (3, 12, 2)

_passive = False


@contextmanager
def passive() -> Iterator[None]:
    """Handlers built inside (by the command line) start no threads of their own. Not thread-safe."""
    global _passive  # noqa: PLW0603 - process-wide by nature
    before, _passive = _passive, True
    try:
        yield
    finally:
        _passive = before


def is_passive() -> bool:
    """True while the command line builds an application's handlers."""
    return _passive


# --- exit ---------------------------------------------------------------------------------------

_finishers: weakref.WeakSet[Any] = weakref.WeakSet()
_armed_pid = 0
_exit_deadline: float | None = None


def arm(finisher: Finisher) -> None:
    """See to it that ``finisher`` is finished when this process ends. Idempotent, cheap after the first call."""
    global _armed_pid  # noqa: PLW0603
    _finishers.add(finisher)
    pid = os.getpid()
    if _armed_pid == pid:
        return
    # A child of os.fork() inherits the registration on 3.11 and 3.12 and loses it on 3.13.
    atexit.unregister(exit_pass)
    atexit.register(exit_pass)
    _arm_multiprocessing()
    _armed_pid = pid  # last: a signal handler may raise anywhere above


def _arm_multiprocessing() -> None:
    """A multiprocessing child ends in os._exit() and, before 3.13, without atexit: use its finalizers."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        # A negative priority runs after the child has joined its own children.
        util.Finalize(None, exit_pass, exitpriority=-100)


def disarm(finisher: Finisher) -> None:
    """Undo :func:`arm`: the command line leaves an application's journals to the application."""
    _finishers.discard(finisher)


def exit_deadline() -> float | None:
    """The one deadline (``time.monotonic()``), or None while the process is not ending."""
    return _exit_deadline


def deadline_within(timeout: float) -> float:
    """``timeout`` seconds from now, but never beyond the process's own deadline."""
    deadline = time.monotonic() + timeout
    return deadline if _exit_deadline is None else min(deadline, _exit_deadline)


def exit_pass() -> None:
    """Finish everything within one deadline: stop all first, then wait for each, so that they end side by side."""
    global _exit_deadline  # noqa: PLW0603
    finishers = _snapshot(_finishers)
    if not finishers:
        return
    if _exit_deadline is None:
        _exit_deadline = time.monotonic() + max(f.drain_timeout for f in finishers)
    for finisher in finishers:
        finisher.finish(_exit_deadline)
    try:
        for finisher in finishers:
            finisher.join(_exit_deadline)
    except KeyboardInterrupt:  # somebody does not want to wait: no reason for a traceback
        _exit_deadline = time.monotonic()
        say("interrupted: what is not delivered stays in the journal")


# --- fork ---------------------------------------------------------------------------------------

_forkables: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited_fds: set[int] = set()
_fd_lock = threading.RLock()


def follow_forks(member: Forkable) -> None:
    """Take ``member`` into the fork hook for as long as it lives."""
    _forkables.add(member)


@contextmanager
def unshared_fds() -> Iterator[set[int]]:
    """The descriptors that a forked child closes (never unlocks: it shares the parent's lock).

    Open or close one inside this context only: it excludes a fork between ``open`` and the entry in the set,
    which would leave a locked descriptor behind in the child.
    """
    with _fd_lock:
        yield _inherited_fds


def _snapshot(members: weakref.WeakSet[Any]) -> list[Any]:
    while True:
        try:
            return list(members)
        except RuntimeError:  # another thread added one: "Set changed size during iteration"
            continue


class _Fork:
    """One fork under way: what it holds. A signal handler may fork amid another fork of its thread."""

    def __init__(self) -> None:
        self.locks: list[Any] = []
        self.members: list[Any] = []

    def hold(self) -> bool:
        logging_lock = logging._lock  # type: ignore[attr-defined]
        logging_lock.acquire()
        self.locks.append(logging_lock)
        members = _snapshot(_forkables)
        for lock in [_fd_lock, *(m.fork_lock for m in members)]:
            if not lock.acquire(timeout=0.05):
                return False
            self.locks.append(lock)
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


class _Forks(threading.local):
    def __init__(self) -> None:
        self.under_way: list[_Fork] = []


_forks = _Forks()


def _before_fork() -> None:
    fork = _Fork()
    _forks.under_way.append(fork)
    while not fork.hold():
        fork.let_go()
        time.sleep(0.001)


def _after_fork_in_parent() -> None:
    _forks.under_way.pop().let_go()


def _after_fork_in_child() -> None:
    global _armed_pid, _exit_deadline  # noqa: PLW0603
    # logging's own hook, registered before ours, has already made its lock anew: nothing to release.
    for fork in _forks.under_way:
        fork.locks = [lock for lock in fork.locks if lock is not logging._lock]  # type: ignore[attr-defined]
    fork = _forks.under_way.pop()
    _armed_pid = 0
    _exit_deadline = None
    _finishers.clear()
    for fd in _inherited_fds:
        os.close(fd)
    _inherited_fds.clear()
    for member in fork.members:
        member.after_fork_in_child()
    fork.let_go()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
