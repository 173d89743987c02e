"""Threads, locks and sleeps of the operating system, whoever has patched those of the standard library.

gevent and eventlet replace ``threading``, ``_thread``, ``queue`` and ``time`` by greenlets, before our import or after
it. Half of ours in one world and half in the other hangs; all of ours as greenlets would stop with the hub, and the hub
with a target that waits in C. So everything of ours is native, always: the threads run beside the hub, and wait for
locks, files and targets without keeping it. What a target does on such a thread with patched sockets runs in a hub of
that thread.

Two things follow. Nothing of ours may switch greenlets while it holds a lock: whoever waits under a lock uses ``sleep``
from here. Whoever waits longer on a thread that is not ours, where greenlets may run (a drain, a close), waits in turns
of ``pause``, which lets them.
"""

from __future__ import annotations

import sys
import time
from _queue import Empty, SimpleQueue
from typing import Any

__all__ = [
    "Empty",
    "RLock",
    "SimpleQueue",
    "allocate_lock",
    "get_ident",
    "getaddrinfo",
    "is_patched",
    "new_poll",
    "pause",
    "sleep",
    "start_new_thread",
]

_TURN = 0.01  # seconds


def _unpatched(module: str, name: str) -> Any:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched(module):
        return monkey.get_original(module, name)
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        return getattr(patcher.original(module), name)
    return getattr(__import__(module), name)


start_new_thread = _unpatched("_thread", "start_new_thread")
allocate_lock = _unpatched("_thread", "allocate_lock")
get_ident = _unpatched("_thread", "get_ident")
RLock = _unpatched("_thread", "RLock")
new_poll = _unpatched("select", "poll")
sleep = _unpatched("time", "sleep")


def getaddrinfo(*what: Any, **how: Any) -> Any:
    """Like ``socket``'s, which costs 5 ms to import: no service needs it that delivers into a file."""
    return _unpatched("socket", "getaddrinfo")(*what, **how)


def is_patched() -> bool:
    """True where what ``threading`` starts is no thread."""
    for name, module in (("gevent.monkey", "threading"), ("eventlet.patcher", "thread")):
        patcher = sys.modules.get(name)
        if patcher is None:
            continue
        ask = getattr(patcher, "is_module_patched", None) or getattr(patcher, "is_monkey_patched", None)
        if ask is not None and ask(module):
            return True
    return False


def pause(seconds: float) -> None:
    """Wait a turn, ``seconds`` at most, on a thread that is not ours: greenlets run meanwhile."""
    time.sleep(max(0.0, min(seconds, _TURN)) if is_patched() else max(0.0, seconds))
