"""A daemon thread that starts when it is first needed, and of which there is at most one.

A signal handler that raises may cut ``Thread.start()`` short, before the new thread runs or after. So nothing is made
of having started it: the thread itself takes the claim, and one that finds it taken leaves.

A thread may not start: a limit on processes is reached, of the container or the user. That is said once in a process,
and tried again, ``AGAIN_SECONDS`` apart, with what is logged; records are committed meanwhile.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, TypeAlias

from . import native
from .clock import monotonic
from .exit import exit_deadline
from .signals import is_our_thread, pass_on
from .stderr import say

if TYPE_CHECKING:
    from collections.abc import Callable

AGAIN_SECONDS = 1.0


class NativeThread:
    """Where ``threading.Thread`` is a greenlet: as much of a thread as we need."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self.name = name
        self.ident: int | None = None
        self._target: Callable[[], None] | None = target
        self._running = native.allocate_lock()

    def start(self) -> None:
        """RuntimeError if there can be no more threads."""
        self._running.acquire()
        try:
            native.start_new_thread(self._run, ())
        except BaseException:
            self._running.release()
            raise

    def _run(self) -> None:
        target, self._target = self._target, None
        self.ident = native.get_ident()
        try:
            if target is not None:
                target()
        finally:
            self._running.release()

    def is_alive(self) -> bool:
        """As that of ``threading.Thread``."""
        return bool(self._running.locked())

    def join(self, timeout: float) -> None:
        """As that of ``threading.Thread``; other greenlets of the caller's thread run meanwhile."""
        until = monotonic() + timeout
        while self.is_alive() and (left := until - monotonic()) > 0:
            native.pause(left)


AnyThread: TypeAlias = threading.Thread | NativeThread


class _Shortage:
    """Whether this process is known to be short of threads."""

    said = False

    def begins(self, error: Exception) -> None:
        if not self.said:
            self.said = True
            reason = error if isinstance(error, RuntimeError) else repr(error)
            say(
                f"no thread can be started ({reason}; see `ulimit -u` and the container's pids limit): records are"
                f" committed, and delivered at the exit, or as soon as one can"
            )

    def ends(self) -> None:
        if self.said:
            self.said = False
            say("threads can be started again: what waits is delivered")


_shortage = _Shortage()


class Worker:
    """Holds no reference to what it runs, so that a handler which nobody uses can be collected at once."""

    __slots__ = ("_again_at", "_claim", "_name", "_starting", "thread")

    def __init__(self, name: str) -> None:
        self._name = name
        self.forget()

    def forget(self) -> None:
        """As new: in a forked child, where the thread is not."""
        self.thread: AnyThread | None = None
        self._claim = native.allocate_lock()
        self._starting = False
        self._again_at = 0.0

    @property
    def is_short(self) -> bool:
        """True if it could not be started, and is to be tried again."""
        return self._again_at > 0.0 and self.thread is None

    def start(self, run: Callable[..., None], *args: object) -> bool:
        """Have ``run(*args)`` run, once and no more; False if no thread can be started, for now or for ever."""
        if self._starting:  # and this is a signal handler
            return True
        if self._again_at and monotonic() < self._again_at:
            return False
        self._starting = True
        try:
            thread = self._new(run, *args)
            thread.start()
            if self.thread is None:
                self.thread = thread
        except Exception as error:  # whatever has patched Thread: the caller only wanted to log
            pass_on(error)
            if exit_deadline() is None and not sys.is_finalizing() and "shutdown" not in str(error):
                self._again_at = monotonic() + AGAIN_SECONDS
                _shortage.begins(error)
            return False
        finally:
            self._starting = False
        self._again_at = 0.0
        _shortage.ends()
        return True

    def _new(self, run: Callable[..., None], *args: object) -> AnyThread:
        claim = self._claim

        def work() -> None:
            if claim.acquire(blocking=False):
                if self._claim is claim:  # else it was forgotten meanwhile
                    self.thread = thread
                is_our_thread()
                run(*args)

        thread: AnyThread = (
            NativeThread(work, self._name)
            if native.is_patched()
            else threading.Thread(target=work, name=self._name, daemon=True)
        )
        return thread
