"""Where a journal may lie, and what is said where it may not: lengths, mounts, file systems, what is full."""

import errno
import logging
import os
import subprocess

import pytest

from lastwords import DurableHandler, JournalError
from lastwords.delivery.lease import Lease
from lastwords.errors import JournalDenied, JournalFull
from lastwords.journal import files, places
from lastwords.journal.store import Store


def works(path):
    handler = DurableHandler(None, path)
    logger = logging.Logger("place")
    logger.addHandler(handler)
    logger.error("there")
    stats = handler.stats()
    handler.close()
    return stats.pending >= 1 and stats.buffered == 0


def test_a_name_may_be_as_long_as_its_side_files_allow(tmp_path):
    """Up to the file system's limit less SQLite's longest suffix; a takeover's lock file fits as well."""
    most = os.pathconf(tmp_path, "PC_NAME_MAX") - len("-journal")
    path = str(tmp_path / ("x" * most))
    assert works(path)
    lease = Lease(path)
    lease.take_over()
    assert lease.held
    lease.release()


@pytest.mark.parametrize("more", [1, 8, 100])
def test_a_name_without_room_for_the_suffixes_is_refused(tmp_path, more):
    """With the number of bytes that there is room for, and nothing is made."""
    most = os.pathconf(tmp_path, "PC_NAME_MAX") - len("-journal")
    with pytest.raises(JournalError, match="bytes") as caught:
        Store(str(tmp_path / ("é" * (most // 2 + more))))
    assert str(most) in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_path_longer_than_sqlite_takes_is_refused(tmp_path):
    """SQLite would only say that it is unable to open a file."""
    folder = tmp_path / ("d" * 200) / ("e" * 200)
    folder.mkdir(parents=True)
    limit = places.SQLITE_PATH - places.LONGEST_SUFFIX
    fits = limit - len(os.fsencode(folder)) - 1
    assert works(str(folder / ("x" * fits)))
    with pytest.raises(JournalError, match="path has 505 bytes"):
        Store(str(folder / ("x" * (fits + 1))))


def test_a_path_that_a_link_makes_too_long_is_refused(tmp_path):
    """It is the resolved path that SQLite opens."""
    folder = tmp_path / ("d" * 240) / ("e" * 240)
    folder.mkdir(parents=True)
    (tmp_path / "short").symlink_to(folder)
    with pytest.raises(JournalError, match="SQLite takes"):
        Store(str(tmp_path / "short" / "journal.db"))


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("virtiofs", True), ("vboxsf", True), ("9p", True), ("fuse.gcsfuse", True), ("fuse", True), ("smb3", True),
        ("fuse.fuse-overlayfs", False), ("fuseblk", False), ("ext4", False), ("overlay", False), ("zfs", False),
        ("btrfs", False), ("tmpfs", False), ("", False),
    ],
)  # fmt: skip
def test_file_systems_of_other_computers_are_known(kind, network):
    """All that a FUSE daemon serves counts as one, but for what is known to lie on the disk below."""
    assert places.is_network(kind) is network


def test_a_journal_that_exists_is_refused_on_a_network_file_system(tmp_path, monkeypatch):
    """Its volume was moved, or the first start came before the mount. Reading what is left stays possible."""
    path = tmp_path / "j.db"
    assert works(str(path))
    monkeypatch.setattr(places, "_linux_mounts", lambda: [("/", "ext4"), (str(tmp_path), "virtiofs")])
    with pytest.raises(JournalError, match="network file system"):
        DurableHandler(None, path)


def test_a_file_that_is_a_mount_point_is_refused_also_through_a_link(tmp_path, monkeypatch):
    """Its -wal would stay in the container. A folder that is one is what should be mounted."""
    folder = tmp_path / "real"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setattr(places, "_linux_mounts", lambda: [("/", "ext4"), (str(folder / "j.db"), "ext4")])
    for path in (folder / "j.db", tmp_path / "link" / "j.db"):
        with pytest.raises(JournalError, match="mount point"):
            Store(str(path))
    monkeypatch.setattr(places, "_linux_mounts", lambda: [("/", "ext4"), (str(folder), "ext4")])
    Store(str(folder / "j.db")).close()


# --- the side files -------------------------------------------------------------------------------------


def put(kind, path):
    if kind == "folder":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        os.symlink("/nowhere", path)
    elif kind == "hard link":
        with open(path + ".other", "w"):
            pass
        os.link(path + ".other", path)


@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "hard link"])
@pytest.mark.parametrize("suffix", [".commit", ".lock", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("exists", [False, True], ids=["new", "old"])
def test_a_side_file_that_is_none_is_refused_and_never_waited_for(tmp_path, kind, suffix, exists):
    """One clear error of the constructor: a FIFO would stop it for ever, what a link names would be overwritten."""
    path = str(tmp_path / "j.db")
    if exists:
        assert works(path)
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    put(kind, path + suffix)
    with pytest.raises(JournalDenied, match=f"j.db{suffix}") as caught:
        DurableHandler(print, path)
    assert caught.value.path == path and path + suffix in caught.value.hint
    os.unlink(path + suffix) if kind != "folder" else os.rmdir(path + suffix)
    assert works(path)


def test_a_rollback_journal_that_names_a_super_journal_is_refused(tmp_path):
    """SQLite deletes the file that it names, whatever that is. The control: without the name it is rolled back."""
    path = tmp_path / "j.db"
    Store(str(path)).close()
    precious = tmp_path / "precious"
    precious.write_text("do not delete")
    name = os.fsencode(precious)
    checksum = sum(name)
    tail = name + len(name).to_bytes(4, "big") + checksum.to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7")
    header = bytes.fromhex("d9d505f920a163d7") + bytes(4) + bytes(4) + (1).to_bytes(4, "big")
    header += (512).to_bytes(4, "big") + (4096).to_bytes(4, "big")
    hot = tmp_path / "j.db-journal"
    hot.write_bytes(header.ljust(512, b"\0") + bytes(4) + tail)
    with pytest.raises(JournalDenied, match="not made by lastwords"):
        Store(str(path))
    assert precious.exists()
    hot.unlink()
    Store(str(path)).close()


def test_a_lock_file_that_cannot_be_opened_is_said_by_the_constructor(tmp_path, monkeypatch):
    """And not by a handler whose records wait in memory, or are never delivered."""
    path = str(tmp_path / "j.db")
    DurableHandler(print, path).close()
    Lease(path).release()
    with open(path + ".lock", "w"):
        pass
    real = os.open
    for suffix in (".commit", ".lock"):

        def denied(name, flags, *args, suffix=suffix, **kwargs):
            if str(name).endswith(suffix):
                raise PermissionError(errno.EACCES, "Permission denied", name)
            return real(name, flags, *args, **kwargs)

        monkeypatch.setattr(os, "open", denied)
        with pytest.raises(JournalDenied, match=f"j.db{suffix} cannot be opened"):
            DurableHandler(print, path)

        def no_number(name, flags, *args, suffix=suffix, **kwargs):
            if str(name).endswith(suffix):
                raise OSError(errno.EMFILE, "Too many open files", name)
            return real(name, flags, *args, **kwargs)

        monkeypatch.setattr(os, "open", no_number)
        with pytest.raises(JournalError, match=f"j.db{suffix} cannot be opened") as caught:
            DurableHandler(print, path)
        assert caught.value.hint == "see `ulimit -n`"
    monkeypatch.setattr(os, "open", real)
    DurableHandler(print, path).close()


# --- what the operating system says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    [errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOLCK, errno.ENOTDIR, errno.EROFS, errno.EMFILE, errno.EIO,
     errno.ENOSPC, errno.EACCES, errno.ENXIO, errno.ESTALE, errno.EDQUOT],
)  # fmt: skip
def test_what_the_system_says_is_a_journal_error_with_a_hint(tmp_path, monkeypatch, number):
    """Never a bare OSError, whatever call it comes from."""
    path = str(tmp_path / "j.db")
    assert works(path)
    real = os.lstat

    def broken(name, *args, **kwargs):
        if str(name) == path:
            raise OSError(number, os.strerror(number), name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(os, "lstat", broken)
    with pytest.raises(JournalError) as caught:
        DurableHandler(None, path)
    assert caught.value.path == path and caught.value.hint
    assert isinstance(caught.value, JournalFull) is (number in {errno.ENOSPC, errno.EDQUOT})


def test_a_loop_of_links_above_it_is_a_journal_error(tmp_path):
    """The folder is there by name only."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(JournalError) as caught:
        DurableHandler(None, tmp_path / "a" / "j.db")
    assert caught.value.hint


@pytest.fixture
def mounted(tmp_path):
    """A small file system: mount(options)."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting is not allowed here")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def test_a_read_only_mount_is_named(mounted):
    """The hint is about the mount, and not about modes that are fine."""
    folder = mounted("size=4m")
    assert works(str(folder / "j.db"))
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    for name in ("j.db", "new.db"):
        with pytest.raises(JournalDenied, match="mounted read-only"):
            DurableHandler(None, folder / name)


def test_a_disk_without_inodes_is_named(mounted):
    """There is space, and SQLite only says that it is unable to open the file."""
    folder = mounted("size=8m,nr_inodes=12")
    assert works(str(folder / "j.db"))
    with pytest.raises(OSError, match="No space"):
        for i in range(20):
            open(folder / str(i), "w").close()
    for name in ("j.db", "new.db"):
        with pytest.raises(JournalFull, match="no inodes left"):
            DurableHandler(None, folder / name)


def test_a_lock_file_outlives_its_journal(tmp_path):
    """Who makes a removed journal anew queues up at the lock of the old one; without either there is nothing to open."""
    path = str(tmp_path / "j.db")
    with pytest.raises(FileNotFoundError):
        files.open_side_file(path, ".commit")
    Store(path).close()
    os.unlink(path)
    os.close(files.open_side_file(path, ".commit"))


def test_a_file_of_several_names_is_warned_of(tmp_path):
    """As one that is a mount point: the -wal belongs to one name only, and the other one's readers and writers damage it."""
    assert works(tmp_path / "j.db")
    os.link(tmp_path / "j.db", tmp_path / "backup.db")
    with pytest.warns(RuntimeWarning, match=r"j\.db has 2 names \(hard links\)"):
        DurableHandler(None, tmp_path / "j.db").close()
    os.unlink(tmp_path / "backup.db")
    assert works(tmp_path / "j.db")
