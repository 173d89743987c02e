"""Who this thread is to the file system: the effective user, or the owner of a journal that root works on."""

from __future__ import annotations

import os


def uid() -> int:
    """The uid by which the file system judges this thread."""
    return os.geteuid()


def is_strict() -> bool:
    """True where root must become the owner of a journal before it touches it: in the command line."""
    return False
