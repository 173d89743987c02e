"""A journal's files: path, owner, mode, what lies beside it, and what tells one file from another.

Rules
-----
* The database file itself is never opened here once it exists: opening and closing it in this
  process, outside SQLite, drops SQLite's POSIX locks (sqlite.org/howtocorrupt.html, 2.2), and another
  process may then unlink the live WAL. Everything is learnt from ``os.stat`` instead.
* A symlink is refused, and so is a file of another user (root excepted): a journal
  under /tmp that somebody else planted would collect or forge our records.
* Side files take the journal's owner and mode, so that root can help out without
  locking the application out. (SQLite does the same for -wal and -shm.)
* What is found beside a journal is input, in a folder like /tmp anybody's: it is used if it is a regular file of the
  journal's owner under one name. A link, a FIFO, a folder, another user's file is refused, and none of them is
  waited for: all is opened with ``O_NOFOLLOW`` and ``O_NONBLOCK``.
* A rollback journal may name a super-journal, which SQLite deletes, whatever that is. We make none with a name in it.
"""

import errno
import os
import stat
import sys
from contextlib import suppress
from typing import NamedTuple

from ..errors import JournalDenied, JournalError, JournalMissing
from ..runtime import identity
from . import places

SIDE_FILES = ("-wal", "-shm")
ROLLBACK = "-journal"
LOCKS = (".commit", ".lock")
_NO_SURPRISE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
READ = os.O_RDONLY | _NO_SURPRISE
WRITE = os.O_RDWR | _NO_SURPRISE
_SUPER_MAGIC = bytes.fromhex("d9d505f920a163d7")  # ends a rollback journal that names one


class Identity(NamedTuple):
    """What makes a journal this journal: another boot, or another file, and seqs may repeat."""

    boot: str
    device: int
    inode: int


def absolute(path: str | os.PathLike[str]) -> str:
    """``~`` expanded and made absolute, so that a later chdir (a daemon's) changes nothing."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"journal must be a str or an os.PathLike of str, not {type(text).__name__}")
    if not text or "\0" in text:
        raise ValueError(f"journal must be the path of a file, not {text!r}")
    try:
        return os.path.abspath(os.path.expanduser(text))
    except FileNotFoundError as error:
        raise JournalError(text, "the current folder no longer exists", "give an absolute path") from error


def _read_boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        pass  # not Linux
    if sys.platform == "darwin":
        return places.printed_by("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid").strip()
    return "unknown"


_boot_id: str | None = None


def boot_id() -> str:
    """A name of this boot of the kernel: what was not synced may be gone after another one."""
    global _boot_id  # noqa: PLW0603 - constant while the process lives
    if _boot_id is None:
        _boot_id = _read_boot_id()
    return _boot_id


def identify(path: str) -> Identity | None:
    """The identity of the file that is at ``path`` now, or None."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return Identity(boot_id(), status.st_dev, status.st_ino)


def count_names(path: str) -> int:
    """How many hard links there are of the file at ``path``: its -wal has only one of their names."""
    with suppress(FileNotFoundError):  # removed meanwhile, which is noticed elsewhere
        return os.stat(path).st_nlink
    return 0


def uri(path: str, query: str) -> str:
    """``path`` as SQLite's URI (sqlite.org/uri.html). Never open a journal without ``mode=``: it would be made."""
    return "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23") + "?" + query


def check_file(path: str) -> os.stat_result | None:
    """Refuse what must not be opened; None if there is nothing at ``path``."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise JournalError(path, "a part of the path is not a folder", "check the path") from error
    except PermissionError as error:
        raise JournalDenied(path, "permission denied", "this user must be able to enter its folder") from error
    except OSError as error:
        raise places.refusal(path, error) from error
    if stat.S_ISLNK(status.st_mode):
        raise JournalDenied(path, "is a symbolic link", "name the file it points to")
    if not stat.S_ISREG(status.st_mode):
        raise JournalError(path, "is not a regular file", "name a file, not a folder or device")
    _check_owner(path, status.st_uid)
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise places.trouble(path) or JournalDenied(
            path, "cannot be read and written by this user", "check its mode and owner"
        )
    return status


def _check_owner(path: str, owner: int) -> None:
    me = identity.uid()
    if me not in (0, owner):
        hint = f"run as that user or as root; if this process has changed its user, give the journal to uid {me}"
        raise JournalDenied(path, f"belongs to another user (uid {owner})", hint)
    check_acting(path, owner)


def check_acting(path: str, owner: int) -> None:
    """For root: refuse a file of another owner than the one it became, or one whose owner it did not become."""
    me = identity.uid()
    if me != owner and (identity.is_acting() or (me == 0 and not identity.may_touch(path))):
        raise JournalDenied(path, f"belongs to uid {owner}, and did not a moment ago", "see who replaces it; try again")


def create_file(path: str, mode: int) -> None:
    """Make the empty file with exactly ``mode``: -wal and -shm inherit it. A file that is there already is fine."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise JournalError(path, "its folder does not exist", f"create {folder} first")
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, mode)
    except FileExistsError:
        return
    except PermissionError as error:
        raise JournalDenied(path, "cannot be created", f"this user cannot write to {folder}") from error
    except OSError as error:
        raise places.refusal(path, error, "cannot be created") from error
    try:
        os.fchmod(fd, mode)  # whatever the umask is
    finally:
        os.close(fd)
    sync_folder(path)


def has_side_files(path: str) -> bool:
    """True if there is what SQLite keeps beside an open file."""
    return any(os.path.lexists(path + suffix) for suffix in SIDE_FILES)


def remove_side_files(path: str) -> None:
    """Remove what SQLite kept beside a file that is gone."""
    for suffix in SIDE_FILES:
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)


def belongings(path: str) -> tuple[os.stat_result | None, ...]:
    """What ``stat`` says of a journal's file, its ``-wal`` and its ``-shm``; None for what is not there."""
    found: list[os.stat_result | None] = []
    for suffix in ("", *SIDE_FILES):
        try:
            found.append(os.stat(path + suffix))
        except OSError:
            found.append(None)
    return tuple(found)


def sync_folder(path: str) -> None:
    """Make the names in the folder of ``path`` durable."""
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_descriptor(fd: int) -> None:
    """What was written to ``fd`` reaches the medium."""
    if sys.platform == "darwin":  # fsync(2) there stops at the drive's cache
        import fcntl  # noqa: PLC0415

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


# --- beside the journal ---------------------------------------------------------------------------------


def owner_of(path: str) -> int:
    """The uid to which all that belongs to the journal must belong; of one that is not there: ours."""
    try:
        return os.lstat(path).st_uid
    except OSError:
        return identity.uid()


def is_sound(status: os.stat_result, owner: int) -> bool:
    """True for a regular file of ``owner`` under one name: all else was put there by somebody, or by accident."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == owner and status.st_nlink <= 1


def is_sound_at(path: str, owner: int) -> bool:
    """:func:`is_sound` of what is at ``path``; False if there is nothing."""
    try:
        return is_sound(os.lstat(path), owner)
    except OSError:
        return False


def _refuse_unsound(journal: str, path: str, status: os.stat_result, owner: int) -> None:
    if is_sound(status, owner):
        return
    about = f"{os.path.basename(path)} beside it "
    if not stat.S_ISREG(status.st_mode):
        problem = f"is {places.kind_of(status)} and no regular file"
    elif status.st_uid != owner:
        problem = f"belongs to another user (uid {status.st_uid}) than the journal (uid {owner})"
    else:
        problem = "has another name, too (a hard link)"
    raise JournalDenied(journal, about + problem, f"see who made it; remove {path} while no service runs")


def check_beside(path: str, owner: int | None = None) -> None:
    """Refuse to open a journal beside files that are not its own. Raises JournalError.

    To be called before it is opened and once more then: one who can make files in its folder, but not remove ours,
    has then failed, or is found out.
    """
    owner = owner_of(path) if owner is None else owner
    for suffix in (*SIDE_FILES, ROLLBACK, *LOCKS):
        try:
            status = os.lstat(path + suffix)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise places.refusal(path, error, suffix) from error
        _refuse_unsound(path, path + suffix, status, owner)
        if suffix == ROLLBACK:
            _refuse_super_journal(path, owner)


def _refuse_super_journal(path: str, owner: int) -> None:
    """SQLite would delete the file that a rollback journal names: as root, any file."""
    try:
        fd = os.open(path + ROLLBACK, READ)
    except FileNotFoundError:
        return  # another process has made the journal meanwhile
    except OSError as error:
        raise places.refusal(path, error, ROLLBACK) from error
    try:
        status = os.fstat(fd)
        _refuse_unsound(path, path + ROLLBACK, status, owner)
        end = os.pread(fd, len(_SUPER_MAGIC), max(0, status.st_size - len(_SUPER_MAGIC)))
    finally:
        os.close(fd)
    if end == _SUPER_MAGIC or (identity.uid() == 0 != owner):
        raise JournalDenied(
            path,
            f"{os.path.basename(path)}{ROLLBACK} beside it was not made by lastwords",
            f"see who made it; remove {path}{ROLLBACK} while no service runs",
        )


def open_side_file(journal: str, suffix: str) -> int:
    """Open a lock file beside the journal, made if need be with its owner and mode.

    One that is there is opened without a journal, too: it was removed, and its next maker needs the lock. Raises
    FileNotFoundError if there is neither, else JournalError.
    """
    for _ in range(100):  # two processes may make and remove it at once
        try:
            fd = os.open(journal + suffix, WRITE)
        except FileNotFoundError:
            with suppress(FileExistsError):
                return make_side_file(journal, suffix)
            continue
        except OSError as error:
            raise _about(journal, suffix, error) from error
        try:
            _refuse_unsound(journal, journal + suffix, os.fstat(fd), owner_of(journal))
        except BaseException:
            os.close(fd)
            raise
        return fd
    raise JournalError(journal, f"{suffix} is made and removed all the time", "see who does that")


def make_side_file(journal: str, suffix: str) -> int:
    """The same for one that must not be there. Raises FileExistsError, FileNotFoundError without a journal."""
    model = os.stat(journal)
    try:
        fd = os.open(journal + suffix, WRITE | os.O_CREAT | os.O_EXCL, stat.S_IMODE(model.st_mode))
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        raise _about(journal, suffix, error) from error
    os.fchmod(fd, stat.S_IMODE(model.st_mode))
    if identity.uid() == 0:
        os.fchown(fd, model.st_uid, model.st_gid)
    return fd


def check_lock(journal: str, suffix: str) -> None:
    """Raise JournalError if there is a lock file that cannot be opened; for one that only other processes have open."""
    if os.path.lexists(journal + suffix):
        os.close(open_side_file(journal, suffix))


def _about(journal: str, suffix: str, error: OSError) -> JournalError:
    name = os.path.basename(journal) + suffix
    hint = f"give {journal}{suffix} the journal's owner and mode, or remove it while no service runs"
    if error.errno in {errno.EMFILE, errno.ENFILE, errno.EIO}:  # no fault of that file
        hint = ""
    return places.refusal(journal, error, f"its lock file {name} cannot be opened", hint)


def open_if_sound(path: str, owner: int, flags: int = READ) -> int | None:
    """A descriptor of a file that belongs to a journal, None if it is not there, not ours to open, or not sound."""
    try:
        fd = os.open(path, flags)
    except OSError:
        return None
    if is_sound(os.fstat(fd), owner):
        return fd
    os.close(fd)
    return None


def must_exist(path: str) -> None:
    """For those who only look: JournalMissing, or JournalDenied if this user cannot tell."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing(path) from error
    except PermissionError as error:
        raise JournalDenied(path, "permission denied", "this user must be able to enter its folder") from error
    except OSError as error:
        raise places.refusal(path, error) from error


def missing(path: str) -> JournalMissing:
    """The error for a journal that ought to be there."""
    return JournalMissing(path, "no such journal", "check the path; a service makes it when it first logs")


def unreadable_folder(pattern: str) -> str | None:
    """A folder in which ``pattern`` may match something that this user may not know of; None if there is none."""
    import glob  # noqa: PLC0415 - only the command line knows patterns

    folder, name = os.path.split(pattern)
    if not name:
        return None
    if glob.has_magic(folder) and (found := unreadable_folder(folder)) is not None:
        return found
    needed = os.R_OK | os.X_OK if glob.has_magic(name) else os.X_OK
    for one in glob.glob(folder, recursive=True) if glob.has_magic(folder) else [folder]:
        try:
            if not stat.S_ISDIR(os.stat(one).st_mode):
                continue
        except PermissionError:  # a folder above it
            return one
        except OSError:
            continue
        if not os.access(one, needed, effective_ids=os.access in os.supports_effective_ids):
            return one
    return None
