"""What the handler has to say about itself goes to stderr, never through logging.

``sys.stderr`` may be anything: None, closed, an object with half of a stream's methods, one that sends what is written
into logging, or a pipe that nobody reads. Whoever has something to say may hold locks, and may be the keeper: nothing
that the stream does reaches them, and a full pipe keeps nobody waiting.
"""

from __future__ import annotations

import select
import sys

from .guard import delivering
from .native import new_poll
from .signals import is_interrupt
from .visible import visible

_LAYOUT = "\n\t"


def say(text: str) -> None:
    """One line on stderr. Trouble inside a handler must not go through logging (CPython gh-91555)."""
    line = f"lastwords: {visible(text, keep=_LAYOUT)}\n"
    try:
        # Marked as a delivery: a stream that logs what it is given would have us say more, without end.
        with delivering():
            _write(getattr(sys, "stderr", None), line)
    except BaseException as error:  # nobody hears it; stats() and `lastwords status` still tell
        if is_interrupt(error):
            raise


def _write(stream: object, line: str) -> None:
    write = getattr(stream, "write", None)
    if write is None or not _takes_it(stream):
        return
    try:
        write(line)
    except UnicodeError:
        write(line.encode("ascii", "backslashreplace").decode("ascii"))
    flush = getattr(stream, "flush", None)
    if flush is not None:
        flush()


def _takes_it(stream: object) -> bool:
    """Whether writing would not wait for somebody to read, as far as that can be told."""
    try:
        fd = stream.fileno()  # type: ignore[attr-defined]
        poll = new_poll()
        poll.register(fd, select.POLLOUT)
        ready = poll.poll(0)
    except BaseException as error:  # no file
        if is_interrupt(error):
            raise
        return True
    return bool(ready)
