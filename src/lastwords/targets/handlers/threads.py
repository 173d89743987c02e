"""Handlers of others that keep a thread, a queue or a pool: what they are given is in their memory only.

No list of names can be complete, but such a handler shows it: among its attributes, or those of the objects of its own
package that it keeps (a worker, a transport, a client), is a queue or a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

_KINDS = {
    ("threading", "Thread"): "a thread",
    ("queue", "Queue"): "a queue",
    ("_queue", "SimpleQueue"): "a queue",
    ("multiprocessing.queues", "Queue"): "a queue",
    ("asyncio.queues", "Queue"): "a queue",
    ("concurrent.futures._base", "Executor"): "a pool of threads",
}
_DEPTH = 3  # google-cloud-logging's handler has a transport, which has a worker, which has a queue


def background(handler: logging.Handler) -> str:
    """Which attribute of ``handler`` is a thread or a queue, in words; "" if none is seen."""
    package = type(handler).__module__.partition(".")[0]
    level: list[tuple[str, Any]] = [("", handler)]
    seen = {id(handler)}
    for _ in range(_DEPTH):
        below: list[tuple[str, Any]] = []
        for path, owner in level:
            for name, value in list(getattr(owner, "__dict__", {}).items()):
                where = f"{path}.{name}" if path else str(name)
                kind = _kind(value)
                if kind:
                    return f"{kind} ({where})"
                if id(value) not in seen and type(value).__module__.partition(".")[0] == package:
                    seen.add(id(value))
                    below.append((where, value))
        level = below
    return ""


def _kind(value: Any) -> str:
    for cls in type(value).__mro__:
        kind = _KINDS.get((cls.__module__, cls.__qualname__))
        if kind:
            return kind
    return ""
