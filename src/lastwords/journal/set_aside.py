"""Setting a damaged journal aside: renames that a kill may cut short, and a mark until the salvage is done.

Rules
-----
* Nothing is deleted: the file and its side files are renamed to ``<journal>.damaged-<UTC time>``. The ``-shm``, too:
  through it a process that still writes to the file, and one that reads what it set aside, see each other.
* The marker, that name with ``.salvage`` added, is on the medium before the first rename, and goes when all that could
  be read is in the new journal and no process writes to the file any more (``LATE_SECONDS``: its keeper has noticed).
  So whoever opens the journal next, after a kill at any point, knows what is left to do.
* The main file is renamed first. Without it nobody opens the journal but to make it anew, and that begins with
  the rest of the renames (``void.make``): a ``-wal`` is neither removed nor left to a file that is not its own.
* All renames are made under the commit lock. Any number of processes may salvage at once, see ``journal/transfer``.
* A marker is input: nothing in it names a file, and only a regular file of the journal's owner counts as one. Else
  a user who can write to the folder (/tmp!) could have forged entries delivered as ours.
"""

import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from ..errors import JournalBusy
from ..runtime.fork import importing
from . import continuity, files
from .commit_lock import SUFFIX as COMMIT_SUFFIX
from .commit_lock import CommitLock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MARKER = ".salvage"
DAMAGED = ".damaged-"
LONGEST = 210  # bytes of a name; file systems take 255
MOST_EPOCHS = 100  # in a marker
LOCK_SECONDS = 1.0  # to wait for the commit lock: its holder may be stopped, and callers wait for us
LATE_SECONDS = 60.0  # in which a process that had the file open notices; an idle keeper looks as often


class Marker(NamedTuple):
    """What a marker says: the inode of the damaged file, what SQLite said of it, and the epochs that were known.

    ``journal`` and ``newest``: how far the journal of that name was noted to be, see ``continuity``; else empty.
    """

    inode: int
    reason: str
    epochs: tuple[tuple[int, str], ...] = ()
    journal: str = ""
    newest: int = 0


def prefix(path: str) -> str:
    """How the names of what is set aside begin; a long name is cut, so that there is room for what is added."""
    folder, name = os.path.split(path)
    raw = os.fsencode(name)
    if len(raw) > LONGEST:
        with importing():
            import hashlib  # noqa: PLC0415 - 8 ms, for the longest names only
        name = os.fsdecode(raw[: LONGEST - 13]) + "~" + hashlib.blake2b(raw, digest_size=6).hexdigest()
    return os.path.join(folder, name + DAMAGED)


def unfinished(path: str) -> list[str]:
    """The files set aside, or about to be, that are not salvaged yet; oldest first."""
    folder, begin = os.path.split(prefix(path))
    try:
        there = [n for n in os.listdir(folder) if n.startswith(begin) and n.endswith(MARKER)]
    except OSError:  # a folder that may be entered but not read
        return []
    owner = files.owner_of(path)
    ours = [n for n in there if files.is_sound_at(os.path.join(folder, n), owner)]
    return sorted((os.path.join(folder, n.removesuffix(MARKER)) for n in ours), key=_age)


def _age(aside: str) -> tuple[str, int, str]:
    stamp, _, number = aside.rpartition(DAMAGED)[2].partition(".")
    return stamp, len(number), number


def was_a_journal(path: str) -> bool:
    """True if there is reason to believe that the file at ``path`` was made by us."""
    return os.path.exists(path + COMMIT_SUFFIX)


def finish_unfinished(path: str) -> None:
    """Before the journal is opened: do the renames that a killed process left. Raises OSError and JournalBusy."""
    if unfinished(path):
        with _commit_lock(path):
            finish(path)


def set_aside(
    path: str,
    identity: files.Identity | None,
    reason: str,
    epochs: "Sequence[tuple[int, str]]" = (),
    *,
    is_damaged: bool = False,
) -> None:
    """Rename it and its side files, if it is still the one. ``is_damaged``: what it should have is not elsewhere."""
    with _commit_lock(path) as lock:
        if identity is None or files.identify(path) != identity:  # another process has done it meanwhile
            return
        marker = Marker(identity.inode, reason[:500], tuple(epochs[-MOST_EPOCHS:]))
        noted = continuity.read(lock.descriptor()) if is_damaged else None
        if noted is not None:
            marker = marker._replace(journal=noted.journal, newest=noted.newest)
        _mark(path, marker)
        finish(path)


@contextmanager
def _commit_lock(path: str) -> "Iterator[CommitLock]":
    lock = CommitLock(path, LOCK_SECONDS)
    try:
        # Where there is neither a journal nor its lock, there is nobody either who could make the one.
        with suppress(FileNotFoundError):
            lock.hold()
            if not lock.owned:  # its holder is stopped: what a commit may do without it, a rename may not
                raise JournalBusy(path, "another process holds its commit lock", "see `ps` for state T")
        yield lock
    finally:
        lock.close()


def _mark(path: str, marker: Marker) -> None:
    with importing():
        import json  # noqa: PLC0415 - no service needs it that meets no damage
    fd = os.open(new_name(path) + MARKER, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        model = os.stat(path)
        os.fchmod(fd, stat.S_IMODE(model.st_mode))
        if os.geteuid() == 0:
            os.fchown(fd, model.st_uid, model.st_gid)
        os.write(fd, json.dumps(marker._asdict()).encode())
        files.sync_descriptor(fd)
    finally:
        os.close(fd)
    files.sync_folder(path)


def new_name(path: str) -> str:
    """A name that nothing has yet, for what is set aside now."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside, number = f"{prefix(path)}{stamp}", 1
    while os.path.lexists(aside) or os.path.lexists(aside + MARKER):
        aside, number = f"{prefix(path)}{stamp}.{number}", number + 1
    return aside


def finish(path: str) -> None:
    """Do the renames that are still due (commit lock held)."""
    for aside in unfinished(path):
        marker = read(aside)
        if marker is None:
            if not os.path.lexists(aside):  # it was being written: no rename was made
                with suppress(FileNotFoundError):  # a sibling was done with it
                    os.unlink(aside + MARKER)
            continue
        there = files.identify(path)
        if there is not None and there.inode == marker.inode and not os.path.lexists(aside):
            os.rename(path, aside)
        for suffix in files.SIDE_FILES:
            if is_empty(path) and os.path.lexists(aside) and not os.path.lexists(aside + suffix):
                with suppress(FileNotFoundError):
                    os.rename(path + suffix, aside + suffix)
        files.sync_folder(path)


def is_empty(path: str) -> bool:
    """True if there is no file, or an empty one."""
    try:
        return os.lstat(path).st_size == 0
    except FileNotFoundError:
        return True


def read(aside: str) -> Marker | None:
    """What the marker of ``aside`` says, None if there is none, or it is not whole."""
    with importing():
        import json  # noqa: PLC0415 - see above
    fd = files.open_if_sound(aside + MARKER, files.owner_of(aside.rpartition(DAMAGED)[0]), files.READ)
    if fd is None:
        return None
    try:
        said = json.loads(os.read(fd, 10_000))
        epochs = tuple((int(first), str(uuid)) for first, uuid in said.get("epochs", ()))
        journal, newest = str(said.get("journal", "")), int(said.get("newest", 0))
        return Marker(int(said["inode"]), str(said["reason"])[:500], epochs, journal, newest)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, OSError):
        return None
    finally:
        os.close(fd)


def done(aside: str) -> bool:
    """All that could be read of ``aside`` is in the journal. False if it is to be looked at once more, later."""
    with suppress(FileNotFoundError):
        if abs(time.time() - os.stat(aside + MARKER).st_mtime) < LATE_SECONDS:
            return False
        os.unlink(aside + MARKER)
    return True
