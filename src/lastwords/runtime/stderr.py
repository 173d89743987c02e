"""What the handler has to say about itself goes to stderr, never through logging."""

from __future__ import annotations

import sys

from .visible import visible

_LAYOUT = "\n\t"


def say(text: str) -> None:
    """One line on stderr. Trouble inside a handler must not go through logging (CPython gh-91555)."""
    stream = sys.stderr
    if stream is None:  # pythonw-like embedders and some daemons
        return
    try:
        stream.write(f"lastwords: {visible(text, keep=_LAYOUT)}\n")
        stream.flush()
    except (OSError, ValueError, RuntimeError):
        return  # nobody reads stderr any more; stats() and `lastwords status` still tell
