"""The file: what is refused, what is left untouched, who may use it."""

import os
import shutil
import sqlite3
import stat
import sys

import pytest

from lastwords import DurableHandler, Journal, JournalError
from lastwords.errors import JournalDamaged, JournalDenied, JournalForeign, JournalMissing
from lastwords.journal import places
from lastwords.journal.readonly import ReadonlyStore
from lastwords.journal.schema import FORMAT
from lastwords.journal.sqlite_codes import wal_reset_is_safe
from lastwords.journal.store import Store


def fingerprint(folder):
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}


def foreign(path):
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE t (x)")
    conn.close()


def foreign_wal(path):
    conn = sqlite3.connect(path)
    conn.execute("PRAGMA journal_mode=wal")
    conn.execute("CREATE TABLE t (x)")
    conn.close()


def too_new(path):
    Store(str(path)).close()
    with sqlite3.connect(path) as conn:
        conn.execute("UPDATE meta SET value = '99' WHERE key = 'min_reader'")
        conn.execute("PRAGMA user_version=99")
    conn.close()


def damaged(path):
    path.write_bytes(b"this is not a database, " * 400)


@pytest.mark.parametrize(
    ("make", "error"),
    [(foreign, JournalForeign), (foreign_wal, JournalForeign), (too_new, JournalForeign), (damaged, JournalDamaged)],
)
@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_not_ours_is_refused_untouched(tmp_path, make, error, create):
    """One clear error with path and hint; not a byte, not a side file changes."""
    path = tmp_path / "j.db"
    make(path)
    before = fingerprint(tmp_path)
    with pytest.raises(error) as caught:
        Store(str(path), create=create)
    assert caught.value.path == str(path)
    assert caught.value.hint
    assert fingerprint(tmp_path) == before


def test_a_missing_journal_is_not_made_by_those_who_only_look(tmp_path):
    """Exit code 66, in the end."""
    with pytest.raises(JournalMissing):
        Journal(tmp_path / "j.db")
    assert list(tmp_path.iterdir()) == []


def test_additive_newer_formats_are_read(tmp_path):
    """min_reader decides, not user_version."""
    path = tmp_path / "j.db"
    Store(str(path)).close()
    with sqlite3.connect(path) as conn:
        conn.execute(f"PRAGMA user_version={FORMAT + 1}")
        conn.execute("ALTER TABLE entries ADD COLUMN something TEXT")
    conn.close()
    assert Journal(path).stats().pending == 0


def test_a_journal_with_triggers_is_refused(tmp_path):
    """Nothing in a journal decides what runs."""
    path = tmp_path / "j.db"
    Store(str(path)).close()
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END")
    conn.close()
    with pytest.raises(JournalForeign, match="triggers"):
        Store(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_foreign_owner_is_refused_and_root_is_not(public):
    """Root may help out; side files that root makes belong to the journal's owner, with its mode."""
    path = public / "j.db"
    Store(str(path)).close()
    for p in public.iterdir():
        os.chown(p, 1234, 1234)
    (public / "j.db.commit").unlink()
    store = Store(str(path))
    with store.lock, store.writing():
        pass
    for name in ("j.db.commit", "j.db-wal"):
        status = (public / name).stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (1234, 0o600), name
    store.close()
    os.chmod(public, 0o777)
    (public / "j.db.commit").unlink()
    os.chown(path, 4321, 4321)
    os.chmod(path, 0o666)
    assert "JournalDenied" in as_user(1234, path)
    assert "another user" in as_user(1234, path)
    assert as_user(4321, path) == "opened"


def as_user(uid, path):
    """What opening the journal says to another user, tried in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(uid)
            Journal(path)
            os.write(write, b"opened")
        except JournalError as error:
            os.write(write, f"{type(error).__name__} {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as pipe:
        return pipe.read()


def test_a_network_file_system_is_refused(tmp_path, monkeypatch):
    """WAL does not work there."""
    monkeypatch.setattr(places, "filesystem_of", lambda path: "nfs4")
    with pytest.raises(JournalError, match="network file system") as caught:
        Store(str(tmp_path / "j.db"))
    assert "local disk" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_file_system_of_a_path_is_found():
    """The longest mount point wins."""
    if sys.platform.startswith("linux"):
        assert places.filesystem_of("/proc/self") == "proc"
        assert places.filesystem_of("/") not in ("", "proc")


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 51, 3), True), ((3, 52, 0), True), ((3, 51, 2), False), ((3, 50, 7), True), ((3, 50, 6), False),
        ((3, 44, 6), True), ((3, 45, 0), False), ((3, 40, 1), False),
    ],
)  # fmt: skip
def test_which_sqlite_has_the_wal_reset_bug(version, safe):
    """From SQLite's release notes."""
    assert wal_reset_is_safe(version) is safe


def test_a_symlinked_folder_is_fine_and_a_symlinked_journal_is_not(tmp_path):
    """/var/run -> /run is common; a planted link in /tmp is an attack."""
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    Store(str(tmp_path / "alias" / "j.db")).close()
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "j.db")
    with pytest.raises(JournalDenied, match="symbolic link"):
        Store(str(tmp_path / "link.db"))


def test_odd_names_are_just_names(tmp_path):
    """URI characters, spaces and quotes in the path."""
    for name in ("a b.db", "50%20.db", "what?.db", "a#b.db", "it's.db", "файл.db"):
        store = Store(str(tmp_path / name))
        store.close()
        assert (tmp_path / name).exists()
    assert not shutil.os.path.exists(tmp_path / "50 .db")


def test_an_sqlite_that_is_too_old_is_refused_and_no_sound_journal_is_taken_for_damaged(tmp_path, monkeypatch):
    """It fails at the schema, in words of its own (tried: 3.9.1, 3.7.17)."""
    path = tmp_path / "j.db"
    DurableHandler(None, path).close()
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 23, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.23.1")
    for make in (lambda: DurableHandler(None, path), lambda: ReadonlyStore(str(path)), lambda: Store(str(path))):
        with pytest.raises(JournalError, match=r"SQLite 3\.23\.1: lastwords needs 3\.24 or newer") as told:
            make()
        assert not isinstance(told.value, JournalDamaged)
    assert sorted(tmp_path.iterdir()) == before
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 24, 0))
    DurableHandler(None, path).close()
