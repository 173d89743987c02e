"""The reentrant lock of all rooms. It knows who holds it and how deep; a signal handler that raises leaves none taken.

Rules
-----
* Reentrant, because a signal handler or a finalizer may log while its own thread is inside. ``is_mine`` and ``depth``
  tell such a nested call what it is.
* Taken as ``with lock:`` and nothing else. Taking and giving back are single calls of C code, so that no signal handler
  gets in between: one that raises finds the lock either not taken, or given back on the way out. A context manager
  written in Python could not promise that: a handler may raise at the first bytecode of its ``__exit__``.

What the Pythons differ in
--------------------------
* CPython 3.14 runs signal handlers between the end of ``__enter__`` and the beginning of the block, if ``__enter__`` is
  C code; if one raises, ``__exit__`` is not called (3.11 to 3.13 do not look there). An ``__enter__`` in Python ends
  without such a look, and gives the lock back itself if it is interrupted: see ``GuardedLock``.
* ``RLock._recursion_count`` exists from 3.11.6 and 3.12.1 on. Before, and wherever one of CPython's private methods is
  missing, ``repr()`` tells the same, more slowly.

Under gevent and eventlet it is a thread's lock, too, see ``native``: nobody switches greenlets who holds it.
"""

from __future__ import annotations

import re
import sys
import weakref
from typing import Any, TypeAlias

from .members import alive
from .native import RLock, get_ident
from .signals import pass_on

_TOLD = re.compile(r"owner=(-?\d+) count=(\d+)")


def depth_told(lock: object) -> int:
    """How often the calling thread has taken ``lock``, as its ``repr()`` says."""
    told = _TOLD.search(repr(lock))
    return int(told[2]) if told is not None and int(told[1]) == get_ident() else 0


def is_mine_told(lock: object) -> bool:
    """Whether the calling thread has taken ``lock``, as its ``repr()`` says."""
    return depth_told(lock) > 0


def is_held(lock: object) -> bool:
    """Whether the calling thread has taken ``lock``, one that is not of our making."""
    ask = getattr(lock, "_is_owned", None)
    return is_mine_told(lock) if ask is None else bool(ask())


_all: weakref.WeakSet[Any] = weakref.WeakSet()


class Lock(RLock):  # type: ignore[misc]
    """CPython's own reentrant lock; with its two answers under names of ours."""

    __slots__ = ()

    is_mine: Any = getattr(RLock, "_is_owned", is_mine_told)
    depth: Any = getattr(RLock, "_recursion_count", depth_told)


class GuardedLock(Lock):
    """For 3.14, see above."""

    __slots__ = ()

    def __enter__(self) -> bool:
        try:
            return bool(self.acquire())
        except BaseException:
            # A signal handler's. Only waiting is interrupted before the lock is taken, and a lock that is ours already
            # is not waited for: so either it was taken just now, or it is not ours at all, which release() tells.
            try:
                self.release()
            except RuntimeError as error:
                pass_on(error)
            raise


AnyLock: TypeAlias = Lock


def new_lock() -> AnyLock:
    """The lock for this Python."""
    lock = GuardedLock() if sys.version_info >= (3, 14) else Lock()
    _all.add(lock)
    return lock


def renew_all() -> None:
    """In a forked process: whoever had taken a lock of ours is not here to give it back, but for this thread."""
    for lock in alive(_all):
        if not lock.is_mine():
            lock._at_fork_reinit()
