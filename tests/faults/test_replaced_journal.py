"""The journal is removed, renamed or replaced under a live handler: what is pending moves into the file at the path."""

import contextlib
import json
import logging
import os
import shutil
import sqlite3
import time

import pytest

from journals import begin, remove
from lastwords import DurableHandler, JournalError
from lastwords.journal import wal
from lastwords.journal.line import Line
from lastwords.journal.store import Store

GONE = {
    "all files": lambda path: [os.unlink(path + s) for s in ("", "-wal", "-shm", ".commit")],
    "the main file only": os.unlink,
    "renamed, as by a rotation": lambda path: os.rename(path, path + ".1"),
    "the main file and the lock": lambda path: [os.unlink(path + s) for s in ("", ".commit")],
}


def messages(path):
    with Line.open(path) as journal:
        return [entry.message for entry in journal.entries()]


@pytest.mark.slow
@pytest.mark.parametrize("level", ["INFO", "ERROR"])
@pytest.mark.parametrize("how", GONE)
def test_it_is_noticed_whatever_is_left_and_whatever_is_logged(tmp_path, poll, capfd, how, level):
    """SQLite's -wal and -shm may stay: a new file must not be opened over them, the old one is read through them.

    And records that are synced by their callers give the keeper nothing to sync: they must make it look all the same.
    """
    path = str(tmp_path / "j.db")
    number = getattr(logging, level)
    handler, log = begin(path, 30, number)
    with Line.open(path) as journal:
        ids = [row.id for row in journal.read(0, 100)]
    with handler._engine.store.lock:  # at once, as far as the keeper can tell
        GONE[how](path)
    log.log(number, "m30")
    said = []
    assert poll(lambda: said.append(capfd.readouterr().err) or " pending records were copied" in "".join(said)), said
    log.log(number, "m31")
    assert messages(path) == [f"m{i}" for i in range(32)]
    with Line.open(path) as journal:
        assert [row.id for row in journal.read(0, 100)][:30] == ids
    handler.close()
    assert messages(path) == [f"m{i}" for i in range(32)]


def test_a_record_is_committed_while_neither_the_file_nor_its_lock_is_there(tmp_path):
    """Into what the connection still has, not into memory, which dies with the process."""
    path = str(tmp_path / "j.db")
    handler = DurableHandler(None, path)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("before")
    store, committer = handler._engine.store, handler._engine.committer
    with store.lock:  # the keeper looks when the lock is gone and the file is not, and waits
        os.unlink(path + ".commit")
        store.commit_lock.close_if_replaced()
        os.unlink(path)
        log.error("after")
        assert committer.trouble is None and committer.committed == 2
    handler.close()
    assert messages(path) == ["before", "after"]


@pytest.mark.parametrize("end", ["close", *(pytest.param(end, marks=pytest.mark.slow) for end in ("exit", "flush"))])
def test_it_is_noticed_at_the_latest_at_the_end(tmp_path, children, end):
    """Nobody logged since, and the keeper had nothing to do."""
    code = """
    import logging, os, sys
    from lastwords import DurableHandler
    handler = DurableHandler(None, sys.argv[1]); log = logging.Logger("x"); log.addHandler(handler)
    for i in range(10): log.error("m%d", i)
    os.unlink(sys.argv[1])
    if sys.argv[2] == "close": handler.close()
    if sys.argv[2] == "flush": handler.flush(); os._exit(0)
    """
    children.run(code, tmp_path / "j.db", end)
    assert messages(tmp_path / "j.db") == [f"m{i}" for i in range(10)]


@pytest.mark.slow
def test_a_copy_that_fails_is_tried_again(tmp_path, monkeypatch):
    """The new file may be locked, or the disk full: the old connection is all that still has the records."""
    path = str(tmp_path / "j.db")
    handler, log = begin(path, 10, sync_interval=100)
    handler._engine.keeper.stop()  # or it is faster
    assert handler._engine.keeper.join(10)
    GONE["all files"](path)
    Store(path).close()  # another service is faster
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="locked"):
        handler._engine.keeper.move()
    assert handler.stats().pending == 10
    other.execute("ROLLBACK")
    handler._engine.keeper.move()
    assert handler.stats().pending == 10
    assert messages(path) == [f"m{i}" for i in range(10)]
    handler.close()


def test_side_files_of_a_file_that_is_there_are_left_alone(tmp_path):
    """The control: they hold what was committed."""
    path = str(tmp_path / "j.db")
    first = DurableHandler(None, path)
    log = logging.Logger("x")
    log.addHandler(first)
    log.info("m")
    assert os.path.getsize(path + "-wal") > 0
    second = Store(path)
    assert os.path.getsize(path + "-wal") > 0
    second.close()
    assert messages(path) == ["m"]
    first.close()


WRITER = """
import logging, sys, time
from lastwords import DurableHandler
path, name, level = sys.argv[1:]
handler = DurableHandler(None, path, sync_level=level, sync_interval=0.2); log = logging.Logger("t"); log.addHandler(handler)
print("ready", flush=True)
end, count = time.monotonic() + 4, 0
while time.monotonic() < end:
    log.info("%s %d", name, count); count += 1
    time.sleep(0.003)
time.sleep(1.5)  # for the last removal to be noticed
end = time.monotonic() + 40
while handler.stats().buffered and time.monotonic() < end: time.sleep(0.01)
assert handler.stats().buffered == 0
handler.close()
print(count, flush=True)
"""


def rotate(path):
    """As logrotate's `create` does."""
    os.rename(path, path + ".1")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "level"),
    [
        ("all files", "CRITICAL"),
        ("rotated", "NOTSET"),
        pytest.param("all files", "NOTSET", marks=pytest.mark.campaign),
        pytest.param("rotated", "CRITICAL", marks=pytest.mark.campaign),
        pytest.param("the main file only", "CRITICAL", marks=pytest.mark.campaign),
        ("the main file only", "NOTSET"),
    ],
)
def test_processes_that_share_a_journal_which_is_removed_again_and_again(children, tmp_path, how, level):
    """Each copies what it knows into the file that is there; none opens one over the -wal of the others, nor makes one.

    Nothing lost, and nothing twice: the three copy the same entries, with the same ids.
    """
    path = str(tmp_path / "j.db")
    writers = [children.start(WRITER, path, name, level) for name in "abc"]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    for pause in (0.5, 0.8, 0.3, 0.9):
        time.sleep(pause)
        with contextlib.suppress(FileNotFoundError, FileExistsError):  # not there yet, or again
            {**GONE, "rotated": rotate}[how](path)
    expected = []
    for name, writer in zip("abc", writers, strict=True):
        out, err = writer.communicate(timeout=120)
        assert writer.returncode == 0, err.decode()
        expected += [f"{name} {i}" for i in range(int(out))]
    seen = messages(path)
    assert set(expected) <= set(seen)
    assert len(seen) == len(set(seen))


def killed(tmp_path, *, begun_anew=False):
    """What a process leaves that was killed with sixty records in its journal: where it is, and their ids by names."""
    handler = DurableHandler(None, tmp_path / "live.db", sync_interval=100)
    log = logging.Logger("x")
    log.addHandler(handler)
    for i in range(60):
        log.error("m%d %s", i, "x" * 300)
        if i == 39 and begun_anew:
            assert wal.checkpoint(handler._engine.store, shrink=False)
    ids = {entry.message.split()[0]: entry.id for entry in handler._engine.journal.entries()}
    for suffix in ("", "-wal", "-shm", ".commit"):
        shutil.copy(tmp_path / ("live.db" + suffix), tmp_path / ("j.db" + suffix))
    handler.close()
    return str(tmp_path / "j.db"), ids


def cut_to_a_part(path):
    os.truncate(path, os.path.getsize(path) // 2)


LOST = {
    "cut": lambda path: os.truncate(path, 0),
    "cut to a part of a page": lambda path: os.truncate(path, 300),
    "cut to a part": cut_to_a_part,
    "removed": os.unlink,
    "-shm, too": lambda path: [os.truncate(path, 0), os.unlink(path + "-shm")],
    ".commit, too": lambda path: [os.truncate(path, 0), os.unlink(path + ".commit")],
}


@pytest.mark.parametrize("begun_anew", [False, True])
@pytest.mark.parametrize("how", LOST)
def test_what_the_wal_of_a_lost_main_file_has_is_delivered(tmp_path, capfd, how, begun_anew):
    """Once, with its ids. If it was begun anew, over frames that the main file had, those left count, too; their ids may
    be lost with the page that has them."""
    path, ids = killed(tmp_path, begun_anew=begun_anew)
    LOST[how](path)
    got = []
    handler = DurableHandler(got.extend, path)
    assert handler.drain(60)
    handler.close()
    found = [entry.message.split()[0] for entry in got]
    assert len(found) == len(set(found))
    if begun_anew:
        assert set(list(ids)[40:]) < set(found), "and some of those before"
    else:
        assert found == list(ids)
        assert [entry.id for entry in got] == list(ids.values())
    assert "set aside" in capfd.readouterr().err
    assert list(tmp_path.glob("j.db.damaged-*-wal"))


@pytest.mark.parametrize("how", ["cut", "cut to a part of a page"])
def test_flush_delivers_what_the_wal_of_a_lost_main_file_has(children, tmp_path, how):
    """Its service may be gone for good; `doctor` and `status` say what it is."""
    from click.testing import CliRunner

    from lastwords.cli.main import cli

    path, out = killed(tmp_path)[0], tmp_path / "out"
    LOST[how](path)
    assert "damaged" in CliRunner().invoke(cli, ["doctor", path]).output or how == "cut"
    done = CliRunner().invoke(cli, ["flush", "--to", f"file:{out}", path])
    assert done.exit_code == 65, done.output
    assert [line.split()[-2] for line in out.read_text().splitlines()] == [f"m{i}" for i in range(60)]


@pytest.mark.parametrize("content", [b"", b"x" * 10, b"\0" * 5_000, b"\x37\x7f\x06\x82" + b"\0" * 9_000])
def test_a_wal_that_is_none_beside_an_empty_file_is_no_reason_not_to_start(tmp_path, content):
    """The journal is made anew."""
    path = tmp_path / "j.db"
    path.touch(0o600)
    (tmp_path / "j.db-wal").write_bytes(content)
    os.chmod(tmp_path / "j.db-wal", 0o600)
    handler = DurableHandler(None, path)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("one")
    assert handler.stats().pending == 1
    handler.close()


def test_the_new_file_knows_where_its_entries_go(tmp_path):
    """Its handler was not made anew: `status` said that the process only commits, and cron would have kept no entry."""
    path = str(tmp_path / "j.db")
    handler = DurableHandler(logging.FileHandler(tmp_path / "x.log"), path, keep_delivered=123.0)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("one")
    assert handler.drain(60)
    with Line.open(path) as journal:
        known = journal.get_meta("destination")
    assert str(tmp_path / "x.log") in known
    remove(handler)
    log.error("two")
    assert handler.drain(60)
    handler.flush()
    log.error("three")
    assert handler.drain(60)
    with Line.open(path) as journal:
        assert (journal.get_meta("destination"), journal.get_meta("keep_delivered")) == (known, "123")
    handler.close()


@pytest.mark.parametrize("has_delivered", [False, True], ids=["pending", "delivered meanwhile"])
def test_a_backup_that_is_moved_over_the_journal_doubles_nothing(tmp_path, has_delivered):
    """What the backup has of its own, or had, is not copied into it once more."""
    path = str(tmp_path / "j.db")
    handler, log = begin(path, 3, logging.ERROR, sync_interval=60)
    with contextlib.closing(sqlite3.connect(path)) as db, contextlib.closing(sqlite3.connect(path + ".bak")) as copy:
        db.backup(copy)
        if has_delivered:
            with copy:
                copy.execute("UPDATE cursor SET settled = 2, consumed = 2")
                copy.execute("DELETE FROM entries WHERE seq <= 2")
    log.error("m3")
    with handler._engine.store.lock:
        os.replace(path + ".bak", path)
        for suffix in ("-wal", "-shm"):
            os.unlink(path + suffix)
    handler.flush()
    log.error("m4")
    with Line.open(path) as journal:
        found = [(row.id.partition("-")[2], json.loads(row.payload)["message"]) for row in journal.read(0, 100)]
    first = 3 if has_delivered else 1
    assert [name for _, name in found if name != "m4"] == [f"m{i}" for i in range(first - 1, 4)]
    assert [seq for seq, name in found if name != "m4"] == [str(i) for i in range(first, 5)]
    assert found[-1][1] == "m4"
    handler.close()
