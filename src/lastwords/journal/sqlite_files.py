"""The descriptors that SQLite has open for a connection of ours, and what is done when somebody closes them.

Theory of operation
-------------------
SQLite keeps three: of the main file, of ``-wal`` and of ``-shm``. They are those of the three files that are open for
writing after a connection was opened and were not before (the keeper may open the ``-wal`` meanwhile, for reading). If
somebody closes them SQLite does not notice: it goes on writing to the numbers, whatever they stand for by then, and its
locks are gone.

* They are opened at high numbers (``FLOOR``), because whoever closes everything and then opens files gets low ones.
* Whether they are still ours is asked before each use, :meth:`SqliteFiles.are_ours`; before a commit into the
  snapshot in a quicker way.
* A number that stands for nothing is put back: the same file is opened at it again, and what was locked is locked.
  SQLite then goes on as if nothing had happened. Opening another connection instead would not do: all of them share
  their locks, and the ``-shm``, per file and process.
* Where that is not possible, because a number is somebody else's by now or the file is another one, the connection is
  abandoned: never used again and never closed, not even by the interpreter's end, which would close what is not ours.
  Another one is opened. If it was the ``-shm``, it would share that number: nothing can be committed by this process
  then, its records wait in memory, and it says so.
"""

import fcntl
import os
import resource
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ..errors import JournalError
from ..runtime.descriptor import Descriptor
from ..runtime.fork import ForksWait
from ..runtime.signals import pass_on
from . import files
from .wal_check import Part, WalCheck

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping

FLOOR = 128  # the first number for SQLite's: more than a program opens after it has closed everything
# What a connection in WAL mode has locked while it is idle, see SQLite's os_unix.c: (first byte, bytes).
MAIN, WAL, SHM = "", "-wal", "-shm"
_Opened: TypeAlias = tuple[tuple[int, int], bool]
_LOCKED = {MAIN: (0x4000_0002, 510), SHM: (128, 1)}  # SHARED; the "dead man's switch"

_openings = ForksWait()  # none falls into one, or leaves its lock to a thread that the child does not have
OPENING = _openings.fork_lock  # one at a time, so that it is known whose descriptors are new; inside a store's lock
_left_behind: dict[tuple[int, int], Descriptor] = {}  # files that have a connection which is never closed
_shm: dict[tuple[int, int], Descriptor] = {}  # all connections of a process to one file share it


def open_numbers() -> "dict[int, _Opened]":
    """By number: the file that it stands for, and whether for writing, too."""
    found = {}
    for number in _numbers():
        try:
            status = os.fstat(number)
            writes = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        except OSError as error:  # closed by now, as the one that was needed to look: no matter whose it was
            pass_on(error)
        else:
            found[number] = (status.st_dev, status.st_ino), writes
    return found


def _numbers() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(name) for name in os.listdir(folder)]
        except OSError as error:  # there is no such folder
            pass_on(error)
    return []


def _lock(suffix: str, descriptor: Descriptor) -> bool:
    if suffix in _LOCKED:
        start, length = _LOCKED[suffix]
        try:
            fcntl.lockf(descriptor.number, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
        except OSError as error:
            pass_on(error)
            return False  # another process has it to itself by now
    return True


@contextmanager
def at_high_numbers() -> "Iterator[Mapping[int, _Opened]]":
    """What is opened inside gets numbers from ``FLOOR`` on. Gives what was open before.

    The numbers alone would not do: another thread may close a file of its own, and SQLite gets that number.
    """
    with OPENING:
        before = open_numbers()
        held: list[int] = []
        floor = min(FLOOR, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        try:
            try:
                number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                held.append(number)
                while number < floor - 1:
                    number = os.dup(number)
                    held.append(number)
            except OSError as error:  # there are no more: low ones, then
                pass_on(error)
            yield before
        finally:
            for number in held:
                os.close(number)


def _inodes(found: tuple[os.stat_result | None, ...]) -> tuple[int, ...]:
    """With the device; 0 for what is not there. A main file that was cut to nothing is not there either."""
    main = found[0]
    cut = main is not None and main.st_size == 0
    inodes = (0 if one is None or (cut and one is main) else one.st_ino for one in found)
    return (0 if main is None else main.st_dev, *inodes)


class SqliteFiles:
    """Those of one connection. ``found`` it after the opening."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inodes: tuple[int, ...] | None = None  # at the names, when the connection was opened
        self._wal_check = WalCheck()
        self._know({})

    def find(self, before: "Mapping[int, _Opened]") -> None:
        """Inside :func:`at_high_numbers`, after something was read."""
        self._inodes, self._wal_check = _inodes(files.belongings(self._path)), WalCheck()
        names = self._names()
        found = {}
        for number, opened in open_numbers().items():
            file, writes = opened
            if file in names and writes and opened != before.get(number):
                found[names[file]] = Descriptor(number)
        left = next((one for file, one in _left_behind.items() if names.get(file) == MAIN), None)
        if left is not None and left.is_ours():
            found.setdefault(MAIN, left)
        if MAIN in found:  # else SQLite had one left from a connection that was closed
            file = found[MAIN].file
            if SHM in found:
                _shm[file] = found[SHM]
            elif file in _shm and _shm[file].is_ours():
                found[SHM] = _shm[file]
            if file in _left_behind:  # SQLite believes that its locks still stand
                _lock(MAIN, found[MAIN])
                if SHM in found:
                    _lock(SHM, found[SHM])
        self._know(found)

    def _names(self) -> dict[tuple[int, int], str]:
        names = {}
        for suffix in (MAIN, WAL, SHM):
            try:
                status = os.stat(self._path + suffix)
            except OSError as error:  # there is none yet
                pass_on(error)
            else:
                names[status.st_dev, status.st_ino] = suffix
        return names

    def are_ours(self) -> bool:
        """Whether SQLite may use them."""
        return all(descriptor.is_ours() for descriptor in self._all.values())

    def seem_ours(self) -> bool:
        """The same by a bit that we have set, for the next commit into the snapshot, so written for speed.

        Unlike :meth:`are_ours` it does not let other threads run: beside one that computes, coming back from that takes
        milliseconds, each time. What it takes for ours and is not, SQLite cannot write to (a socket, a pipe), or it was
        opened without blocking, as hardly anybody opens a file; :meth:`are_ours` tells within ``sync_interval``.
        """
        try:
            for number in self._with_bit:
                if os.get_blocking(number):
                    return False
        except OSError as error:
            pass_on(error)
            return False
        return not self._without_bit or all(descriptor.is_ours() for descriptor in self._without_bit)

    def are_at_path(self) -> bool:
        """Whether the names still stand for the files that the connection has, and no stat tells of a cut.

        Three stats, no lock. False if there is reason to look closer: :meth:`are_whole`.
        """
        now = files.belongings(self._path)
        return self._inodes is None or (_inodes(now) == self._inodes and not self._wal_check.is_suspect(now[1]))

    def are_whole(self) -> bool:
        """Whether they are at their names, with all that was committed (the store's lock held)."""
        while (whole := self.look()) is None:
            pass
        return whole

    def _can_tell(self) -> bool:
        """Whether there is what a look needs; without it nobody can tell."""
        return WAL in self._all and SHM in self._all and self.are_ours()

    def part(self, wal: int, done: Part | None) -> Part | None:
        """What :meth:`look` need not look at if it is sound. ``wal``: a descriptor of our own. Raises OSError."""
        if not self._can_tell():
            return None
        status = os.fstat(wal)
        if (status.st_dev, status.st_ino) != self._all[WAL].file:
            return None
        return self._wal_check.part(self._all[SHM].number, done)

    def look(self) -> bool | None:
        """A slice of :meth:`are_whole`; None if the next one is to tell."""
        if self._inodes is None:
            return True
        if _inodes(files.belongings(self._path)) != self._inodes:
            return False
        if not self._can_tell():
            return True
        return self._wal_check.look(self._all[WAL].number, self._all[SHM].number)

    def _know(self, found: dict[str, Descriptor]) -> None:
        self._all = found
        self._without_bit = [one for one in found.values() if not one.set_bit()]
        self._with_bit = tuple(one.number for one in found.values() if one not in self._without_bit)

    def put_back(self) -> bool:
        """Open again what was closed; False if that is not possible."""
        done = [descriptor.is_ours() or self._put_back(suffix) for suffix, descriptor in self._all.items()]
        self._know(self._all)
        return all(done)  # each was tried, whatever became of the others

    def _put_back(self, suffix: str) -> bool:
        lost = self._all[suffix]
        if not lost.is_free():
            return False
        fd = files.open_if_sound(self._path + suffix, files.owner_of(self._path), files.WRITE)
        if fd is None:
            return False
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != lost.file:
            os.close(fd)
            return False
        if fd != lost.number:
            there = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lost.number)  # it, or a higher one: nobody's is closed
            os.close(fd)
            if there != lost.number:
                os.close(there)
                return False
        lost.mark_again()
        return _lock(suffix, lost)

    def sync(self) -> None:
        """What a checkpoint has written to the main file reaches the medium. Raises OSError."""
        main = self._all.get(MAIN)
        if main is not None and main.is_ours():
            files.sync_descriptor(main.number)  # SQLite's own: another one, closed, would drop its locks

    @contextmanager
    def kept(self) -> "Iterator[None]":
        """A main file that was removed stays for as long as this, though SQLite closes it inside.

        SQLite closes inside a mutex that every commit of the process wants, and the last one to close a file without a
        name waits for its blocks to be freed. Not for a file with a name: somebody may have locks on it.
        """
        main, number = self._all.get(MAIN), -1
        with suppress(OSError):  # no descriptor is free: a wait, then, and nothing else
            if main is not None and main.is_ours() and os.fstat(main.number).st_nlink == 0:
                number = os.dup(main.number)
        try:
            yield
        finally:
            if number >= 0:
                os.close(number)

    def forget(self) -> None:
        """SQLite is about to close them."""
        self._know({})

    def give_up(self) -> None:
        """The connection is left behind."""
        if MAIN in self._all:
            _left_behind[self._all[MAIN].file] = self._all[MAIN]
        self._know({})

    def refuse_if_lost(self) -> None:
        """Raise JournalError if another connection would share a number that is somebody else's."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return
        file = (status.st_dev, status.st_ino)
        shared = _shm.get(file)
        if file in _left_behind and shared is not None:
            self._know({SHM: shared})
            if self._names().get(shared.file) != SHM:
                raise JournalError(
                    self._path,
                    "its -shm was removed, and this process still has the old one open",
                    "restart it",
                )
            if not (shared.is_ours() or self._put_back(SHM)):
                raise JournalError(
                    self._path,
                    "this program has closed its descriptors, and uses their numbers for files of its own",
                    "restart it; whoever closes descriptors should do so before the handler is made",
                )


class Swapped(NamedTuple):
    """What belongs to a file that is no longer the journal."""

    conn: "sqlite3.Connection"
    epochs: list[tuple[int, str]]
    identity: files.Identity | None
    sqlite_files: SqliteFiles


def are_in_use(path: str) -> bool:
    """Whether a process has the ``-wal`` and ``-shm`` beside ``path`` open; also if that cannot be told."""
    try:
        status = os.stat(path + SHM)
    except OSError:
        return False
    if any(one.file == (status.st_dev, status.st_ino) and one.is_ours() for one in _shm.values()):
        return True  # this one: another descriptor, closed, would take its locks along
    fd = files.open_if_sound(path + SHM, files.owner_of(path), files.WRITE)
    if fd is None:
        return True
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCKED[SHM][1], _LOCKED[SHM][0])
    except OSError as error:
        pass_on(error)
        return True
    finally:
        os.close(fd)
    return False


def abandon(*things: object) -> None:
    """Never close them."""
    _abandoned.extend(things)
    with suppress(ImportError, AttributeError):  # another Python: its end closes them
        import ctypes  # noqa: PLC0415 - once per process

        for thing in things:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


_abandoned: list[object] = []
