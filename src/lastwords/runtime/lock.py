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
* gevent and eventlet, patched in before a lock is made, have locks that belong to greenlets. Those cannot tell their
  depth alike, so it is counted beside them: see ``CountedLock``.
"""

from __future__ import annotations

import re
import sys
import threading
from _thread import RLock, get_ident
from typing import TYPE_CHECKING, Any, TypeAlias

from .signals import pass_on

if TYPE_CHECKING:
    from types import TracebackType

_TOLD = re.compile(r"owner=(-?\d+) count=(\d+)")


def depth_told(lock: object) -> int:
    """How often the calling thread has taken ``lock``, as its ``repr()`` says."""
    told = _TOLD.search(repr(lock))
    return int(told[2]) if told is not None and int(told[1]) == get_ident() else 0


def is_mine_told(lock: object) -> bool:
    """Whether the calling thread has taken ``lock``, as its ``repr()`` says."""
    return depth_told(lock) > 0


class Lock(RLock):  # type: ignore[misc] # final in typeshed only
    """CPython's own reentrant lock; with its two answers under names of ours."""

    __slots__ = ()

    is_mine: Any = getattr(RLock, "_is_owned", is_mine_told)
    depth: Any = getattr(RLock, "_recursion_count", depth_told)


class GuardedLock(Lock):  # type: ignore[misc]
    """For 3.14, see above."""

    __slots__ = ()

    def __enter__(self) -> bool:  # type: ignore[override] # there it is an alias of acquire
        try:
            return self.acquire()
        except BaseException:
            # A signal handler's. Only waiting is interrupted before the lock is taken, and a lock that is ours already
            # is not waited for: so either it was taken just now, or it is not ours at all, which release() tells.
            try:
                self.release()
            except RuntimeError as error:
                pass_on(error)
            raise


class CountedLock:
    """Around a lock of gevent's or eventlet's."""

    __slots__ = ("__weakref__", "_depth", "_lock", "_owner")

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._owner = 0
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As that of ``threading.RLock``."""
        if not self._lock.acquire(blocking, timeout):
            return False
        self._owner = threading.get_ident()  # looked up each time: patched or not
        self._depth += 1
        return True

    def release(self) -> None:
        """As that of ``threading.RLock``."""
        if not self.is_mine():
            raise RuntimeError("cannot release a lock that is not one's own")
        self._depth -= 1
        if not self._depth:
            self._owner = 0
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def is_mine(self) -> bool:
        """Whether the calling greenlet has taken it."""
        return self._depth > 0 and self._owner == threading.get_ident()

    def depth(self) -> int:
        """How often the calling greenlet has taken it."""
        return self._depth if self.is_mine() else 0


AnyLock: TypeAlias = Lock | CountedLock


def new_lock() -> AnyLock:
    """A lock for whatever ``threading`` is at present."""
    lock = threading.RLock()
    if type(lock) is not RLock:
        return CountedLock(lock)
    return GuardedLock() if sys.version_info >= (3, 14) else Lock()
