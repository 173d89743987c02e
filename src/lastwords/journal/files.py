"""Where a journal lives: its path, owner, mode, file system, and what tells one file from another.

Rules
-----
* The database file itself is never opened here once it exists: opening and closing it in this
  process, outside SQLite, drops SQLite's POSIX locks (sqlite.org/howtocorrupt.html, 2.2), and another
  process may then unlink the live WAL. Everything is learnt from ``os.stat`` instead.
* A symlink is refused, and so is a file of another user (root excepted): a journal
  under /tmp that somebody else planted would collect or forge our records.
* Side files take the journal's owner and mode, so that root can help out without
  locking the application out. (SQLite does the same for -wal and -shm.)
"""

from __future__ import annotations

import glob
import os
import stat
import sys
from contextlib import suppress
from typing import NamedTuple

from ..errors import JournalDenied, JournalError, JournalMissing

# WAL needs shared memory between all users of the file, which network file systems do not give
# (sqlite.org/wal.html, "all processes using a database must be on the same host computer").
NETWORK_FILESYSTEMS = frozenset(
    """9p afs afpfs beegfs ceph cifs coda fuse.cephfs fuse.davfs fuse.glusterfs fuse.rclone fuse.s3fs fuse.sshfs
    gfs2 glusterfs lustre ncpfs nfs nfs4 ocfs2 orangefs smb2 smb3 smbfs webdav""".split()
)


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


def _printed_by(*command: str) -> str:
    import subprocess  # noqa: PLC0415 - only macOS needs it, and it takes milliseconds to import

    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout  # noqa: S603


def _read_boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        pass  # not Linux
    if sys.platform == "darwin":
        return _printed_by("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid").strip()
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


def _unescape(mount_point: str) -> str:
    return mount_point.encode("latin-1", "replace").decode("unicode_escape")


def filesystem_of(path: str) -> str:
    """The type of the file system that holds ``path``, "" where it cannot be told."""
    if sys.platform == "darwin":
        return _darwin_filesystem(path)
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields = line.split(" ")
                point = _unescape(fields[1]) if "\\" in fields[1] else fields[1]
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):  # the last of equals is the one on top
                    best, kind = point, fields[2]
    except (OSError, IndexError):
        return ""
    return kind


def _darwin_filesystem(path: str) -> str:
    best, kind = "", ""
    for line in _printed_by("/sbin/mount").splitlines():  # "/dev/disk1s1 on /Volumes/x (apfs, local, ...)"
        left, _, options = line.rpartition(" (")
        point = left.partition(" on ")[2]
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, options.partition(",")[0].rstrip(")")
    return kind


def uri(path: str, query: str) -> str:
    """``path`` as SQLite's URI (sqlite.org/uri.html). Never open a journal without ``mode=``: it would be made."""
    return "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23") + "?" + query


def check_filesystem(path: str) -> None:
    """Refuse a network file system: WAL does not work there."""
    kind = filesystem_of(os.path.realpath(os.path.dirname(path)))
    if kind in NETWORK_FILESYSTEMS:
        raise JournalError(
            path,
            f"is on a network file system ({kind}), where SQLite's WAL does not work",
            "put the journal on a local disk, such as /var/lib/NAME",
        )


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
    if stat.S_ISLNK(status.st_mode):
        raise JournalDenied(path, "is a symbolic link", "name the file it points to")
    if not stat.S_ISREG(status.st_mode):
        raise JournalError(path, "is not a regular file", "name a file, not a folder or device")
    me = os.geteuid()
    if me not in (0, status.st_uid):
        raise JournalDenied(path, f"belongs to another user (uid {status.st_uid})", "run as that user or as root")
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise JournalDenied(path, "cannot be read and written by this user", "check its mode and owner")
    return status


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
        raise JournalError(path, f"cannot be created: {error.strerror}", "check the disk and the path") from error
    try:
        os.fchmod(fd, mode)  # whatever the umask is
    finally:
        os.close(fd)
    sync_folder(path)


SIDE_FILES = ("-wal", "-shm")


def has_side_files(path: str) -> bool:
    """True if there is what SQLite keeps beside an open file."""
    return any(os.path.lexists(path + suffix) for suffix in SIDE_FILES)


def remove_side_files(path: str) -> None:
    """Remove what SQLite kept beside a file that is gone."""
    for suffix in SIDE_FILES:
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)


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


def open_side_file(journal: str, suffix: str) -> int:
    """Open, making it if need be, a lock file beside the journal, with the journal's owner and mode."""
    path = journal + suffix
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    model = os.stat(journal)
    fd = os.open(path, flags | os.O_CREAT, stat.S_IMODE(model.st_mode))
    os.fchmod(fd, stat.S_IMODE(model.st_mode))
    if os.geteuid() == 0:
        os.fchown(fd, model.st_uid, model.st_gid)
    return fd


def must_exist(path: str) -> None:
    """For those who only look: JournalMissing, or JournalDenied if this user cannot tell."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing(path) from error
    except PermissionError as error:
        raise JournalDenied(path, "permission denied", "this user must be able to enter its folder") from error


def missing(path: str) -> JournalMissing:
    """The error for a journal that ought to be there."""
    return JournalMissing(path, "no such journal", "check the path; a service makes it when it first logs")


def unreadable_folder(pattern: str) -> str | None:
    """A folder in which ``pattern`` may match something that this user may not know of; None if there is none."""
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
