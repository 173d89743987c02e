"""A file that we write to: is it the one at its path, is it on the medium, is it still there."""

from __future__ import annotations

import errno
import os

from ..journal import files

# What cannot be synced is not a file on a disk: a pipe, a terminal, /dev/null.
_NOT_ON_DISK = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EROFS})


def is_at(fd: int, path: str) -> bool:
    """True if ``fd`` is the file that is at ``path`` now."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def sync(fd: int, path: str) -> None:
    """What was written is on the medium. FileNotFoundError if the file was removed meanwhile, and all of it."""
    try:
        files.sync_descriptor(fd)
    except OSError as error:
        if error.errno not in _NOT_ON_DISK:
            raise
    if os.fstat(fd).st_nlink == 0 and not is_at(fd, path):
        raise FileNotFoundError(errno.ENOENT, "removed while it was written to", path)
