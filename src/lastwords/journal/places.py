"""Where a journal lies: the file system, the mounts, the length of its name; and what an OSError there means.

Rules
-----
* A journal is refused where it would not keep its promises: on a network file system (SQLite's WAL needs memory that is
  shared between all who use the file, sqlite.org/wal.html), as a mount of the file alone (its ``-wal`` would be left
  behind), under a name that leaves no room for the suffixes of its side files. A new one and one that exists alike.
* Whatever the operating system says against a path becomes a JournalError that names it, with a hint that fits.
"""

import errno
import os
import stat
import sys
from typing import NamedTuple

from ..errors import JournalDenied, JournalError, JournalFull

NETWORK_FILESYSTEMS = frozenset(
    """9p acfs afpfs afs beegfs ceph cifs coda davfs drvfs fakeowner fuse gfs gfs2 glusterfs gpfs hgfs lustre moosefs
    ncpfs nfs nfs3 nfs4 ocfs2 orangefs osxfs panfs prl_fs pvfs2 smb smb2 smb3 smbfs vboxsf virtiofs vmhgfs
    webdav""".split()
)
# What a FUSE daemon serves is another computer's more often than not; these lie on the local disk below them.
LOCAL_FUSE = frozenset(
    """fuse.bindfs fuse.cryfs fuse.encfs fuse.fuse-overlayfs fuse.gocryptfs fuse.mergerfs fuse.ntfs-3g
    fuse.unionfs""".split()
)
SQLITE_PATH = 512  # bytes, MAX_PATHNAME of SQLite's unix VFS
LONGEST_SUFFIX = len("-journal")  # of those that a journal cannot do without


class Mount(NamedTuple):
    """What is mounted where."""

    point: str
    kind: str


def printed_by(*command: str) -> str:
    """What a command of the system prints."""
    import subprocess  # noqa: PLC0415 - only macOS needs it, and it takes milliseconds to import

    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout  # noqa: S603


def _unescape(mount_point: str) -> str:
    return mount_point.encode("latin-1", "replace").decode("unicode_escape")


def mount_of(path: str) -> Mount:
    """The mount that ``path`` (without symbolic links) is on; empty where it cannot be told."""
    best = Mount("", "")
    for point, kind in _darwin_mounts() if sys.platform == "darwin" else _linux_mounts():
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best.point):  # the last of equals is the one on top
            best = Mount(point, kind)
    return best


def _linux_mounts() -> list[tuple[str, str]]:
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            lines = [line.split(" ") for line in mounts]
    except OSError:
        return []
    return [(_unescape(f[1]) if "\\" in f[1] else f[1], f[2]) for f in lines if len(f) > 2]


def _darwin_mounts() -> list[tuple[str, str]]:
    found = []
    for line in printed_by("/sbin/mount").splitlines():  # "/dev/disk1s1 on /Volumes/x (apfs, local, ...)"
        left, _, options = line.rpartition(" (")
        found.append((left.partition(" on ")[2], options.partition(",")[0].rstrip(")")))
    return found


def filesystem_of(path: str) -> str:
    """The type of the file system that holds ``path``, "" where it cannot be told."""
    return mount_of(path).kind


def is_network(kind: str) -> bool:
    """True if WAL does not work, or cannot be relied on, on a file system of this type."""
    return kind in NETWORK_FILESYSTEMS or (kind.startswith("fuse.") and kind not in LOCAL_FUSE)


def resolved(path: str) -> str:
    """``path`` with the symbolic links of its folders resolved."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def is_mount_point(path: str) -> bool:
    """True if the file itself, and not its folder, is what was mounted."""
    real = resolved(path)
    return mount_of(real).point == real


def check(path: str) -> None:
    """Refuse a place where a journal would not keep its promises. Raises JournalError."""
    _check_length(path)
    kind = filesystem_of(os.path.realpath(os.path.dirname(path)))
    if is_network(kind):
        raise JournalError(
            path,
            f"is on a network file system ({kind}), where SQLite's WAL does not work",
            "put the journal on a local disk, such as /var/lib/NAME",
        )
    if is_mount_point(path):
        raise JournalError(
            path,
            "is itself a mount point, so its -wal would not be on the same volume, and be left behind with it",
            "mount the folder that the journal is in",
        )


def _check_length(path: str) -> None:
    folder, name = os.path.split(path)
    try:
        most = os.pathconf(folder, "PC_NAME_MAX") - LONGEST_SUFFIX
    except (OSError, ValueError):  # there is no such folder, which is said later; or the system does not tell
        most = 255 - LONGEST_SUFFIX
    length = len(os.fsencode(name))
    if length > most:
        raise JournalError(
            path,
            f"its name has {length} bytes, which leaves no room for the suffixes of its side files",
            f"at most {most} bytes are possible here",
        )
    length = max(len(os.fsencode(path)), len(os.fsencode(resolved(path))))
    if length > SQLITE_PATH - LONGEST_SUFFIX:
        raise JournalError(
            path,
            f"the path has {length} bytes, and SQLite takes {SQLITE_PATH - LONGEST_SUFFIX}",
            "choose a shorter one",
        )


# --- what went wrong there ------------------------------------------------------------------------------


def trouble(path: str) -> JournalError | None:
    """What the file system of ``path`` says about itself: read-only, no space, no inodes; None if it is fine."""
    try:
        volume = os.statvfs(os.path.dirname(path))
    except (OSError, ValueError):
        return None
    if volume.f_flag & os.ST_RDONLY:
        return JournalDenied(path, "is on a file system that is mounted read-only", "remount it: mount -o remount,rw")
    if volume.f_files and not volume.f_favail:
        return JournalFull(path, "the disk has no inodes left", "remove some files, and run this again; see `df -i`")
    if volume.f_blocks and not volume.f_bavail:
        return JournalFull(path, "the disk is full", "free some space, and run this again")
    return None


_SAID: dict[int, tuple[str, str]] = {
    errno.ENOENT: ("there is no such file or folder", "check the path"),
    errno.ENOTDIR: ("a part of the path is not a folder", "check the path"),
    errno.ELOOP: ("is a symbolic link, or leads through too many", "name what it points to"),
    errno.EISDIR: ("is a folder", "name a file"),
    errno.ENAMETOOLONG: ("its name is too long", "choose a shorter one"),
    errno.ENXIO: ("is not a regular file", "name a regular file"),
    errno.ENODEV: ("is not a regular file", "name a regular file"),
    errno.ENOLCK: ("the file system gives no locks", "put the journal on a local disk"),
    errno.ENOTSUP: ("the file system does not support that", "put the journal on a local disk"),
    errno.ENOSYS: ("the file system does not support that", "put the journal on a local disk"),
    errno.ESTALE: ("the network file system lost it", "put the journal on a local disk"),
    errno.EMFILE: ("this process has too many files open", "see `ulimit -n`"),
    errno.ENFILE: ("this computer has too many files open", "see /proc/sys/fs/file-max"),
    errno.EIO: ("the disk does not answer", "see `dmesg`"),
}


def refusal(path: str, error: OSError, about: str = "", hint: str = "") -> JournalError:
    """``error`` as a JournalError. ``about``: what it is that the path does not say; ``hint``: instead of the usual."""
    about += ": " if about else ""
    if error.errno in {errno.EROFS, errno.ENOSPC, errno.EDQUOT}:
        found = trouble(path)
        if found is not None:
            return found
        if error.errno != errno.EROFS:
            return JournalFull(path, "the disk is full, or a quota", "free some space, and run this again")
        return JournalDenied(path, f"{about}the file system is mounted read-only", "remount it")
    if isinstance(error, PermissionError):
        return JournalDenied(path, f"{about}permission denied", hint or "check the owners and modes of file and folder")
    said, usual = _SAID.get(error.errno or 0, (error.strerror or str(error), "check the disk and the path"))
    return JournalError(path, about + said, hint or usual)


def kind_of(status: os.stat_result) -> str:
    """What kind of file it is, for a complaint about it."""
    for is_one, name in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if is_one(status.st_mode):
            return name
    return "a regular file" if stat.S_ISREG(status.st_mode) else "a device"
