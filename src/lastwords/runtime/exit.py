"""The end of the process: one atexit callback, one deadline for all handlers.

Rules
-----
* ONE atexit callback, registered lazily per pid: CPython 3.13 clears a forked
  child's atexit list after the fork hooks have run, so what they register would be lost.
* ONE deadline for the whole process: the exit pass sets it, and only an interrupt (Ctrl-C) shortens it.
* No lock is taken in ``__del__``, and no signal handler is installed.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import Any, Protocol

from .clock import monotonic
from .members import alive
from .stderr import say


class Finisher(Protocol):
    """What wants to end in good order when the process does."""

    drain_timeout: float

    def finish(self, deadline: float) -> None:
        """Stop at ``deadline`` (``time.monotonic()``); returns at once."""

    def join(self, deadline: float) -> None:
        """Wait for the end, not beyond ``deadline``."""


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
    deadline = monotonic() + timeout
    return deadline if _exit_deadline is None else min(deadline, _exit_deadline)


def exit_pass() -> None:
    """Finish everything within one deadline: stop all first, then wait for each, so that they end side by side."""
    global _exit_deadline  # noqa: PLW0603
    finishers = alive(_finishers)
    if not finishers or _armed_pid != os.getpid():  # of a parent that was forked by C code
        return
    if _exit_deadline is None:
        _exit_deadline = monotonic() + max(f.drain_timeout for f in finishers)
    for finisher in finishers:
        finisher.finish(_exit_deadline)
    try:
        for finisher in finishers:
            finisher.join(_exit_deadline)
    except KeyboardInterrupt:  # somebody does not want to wait: no reason for a traceback
        _exit_deadline = monotonic()
        say("interrupted: what is not delivered stays in the journal")


def forget_in_child() -> None:
    """A forked child arms its own handlers, and does not end because its parent does."""
    global _armed_pid, _exit_deadline  # noqa: PLW0603
    _armed_pid = 0
    _exit_deadline = None
    _finishers.clear()
