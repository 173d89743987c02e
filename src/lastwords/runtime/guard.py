"""Which threads are inside a target, and which only look: what must not log into a journal or start a thread.

Rules
-----
* The recursion guard is thread-local and module-wide: what a target's client logs while it delivers enters no journal.
* Root that works as a journal's owner is itself inside a target, see ``identity``.
* While the command line builds an application's handlers they are passive: no courier of theirs competes with ours.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import identity

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Guard(threading.local):
    depth = 0


guard = _Guard()  # for who asks with each record


def is_delivering() -> bool:
    """True on a thread that is inside a target right now: what it logs enters no journal.

    Module-wide on purpose: with a guard per handler two proxies play ping-pong with one record.
    """
    return guard.depth > 0


@contextmanager
def delivering() -> Iterator[None]:
    """Mark this thread as being inside a target. Nests."""
    guard.depth += 1
    try:
        if identity.is_acting():
            with identity.stepped_out():
                yield
        else:
            yield
    finally:
        guard.depth -= 1


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
