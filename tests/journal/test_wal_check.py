"""Whether the -wal has what the -shm says of it: cuts are found, checkpoints are no cuts."""

import contextlib
import logging
import os
import sqlite3
import subprocess

import pytest

from lastwords import DurableHandler, Journal
from lastwords.journal import wal, wal_check
from lastwords.journal.store import Store
from lastwords.record import codec


def commit(store, count=3, message="m"):
    row = codec.encode(logging.LogRecord("x", 20, "/x.py", 1, message, (), None, "f"))
    with store.lock:
        for _ in range(count):
            with store.writing() as conn:
                conn.execute("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", row)


@pytest.mark.parametrize("mode", ["PASSIVE", "RESTART", "TRUNCATE"])
def test_what_a_checkpoint_does_to_the_file_is_no_cut(tmp_path, mode):
    """Another connection makes it shorter, or begins it anew, as it may."""
    store = Store(str(tmp_path / "j.db"))
    files = store.sqlite_files
    for count in (5, 1, 30):
        commit(store, count)
        assert files.are_at_path()
        assert files.are_whole()
        with store.lock:
            other = store.side_connection()
            other.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
            other.close()
        assert files.are_whole()
        assert files.are_at_path()
    store.close()


def test_a_checkpoint_in_the_middle_of_a_look_is_no_cut_either(tmp_path, monkeypatch):
    """`lastwords prune` beside a service: between the frames and their checksums the file became empty."""
    path = str(tmp_path / "j.db")
    store = Store(path)
    commit(store, 5)
    real, cut = wal_check._sums_up, []

    def sums_up(*args):
        if not cut:
            with contextlib.closing(sqlite3.connect(path)) as other:
                cut.append(other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        return real(*args)

    monkeypatch.setattr(wal_check, "_sums_up", sums_up)
    assert store.sqlite_files.are_whole()
    assert cut == [0]
    assert os.path.getsize(path + "-wal") == 0
    store.close()


def test_a_cut_is_found_before_a_checkpoint_writes_zeros_into_the_main_file(tmp_path):
    """The control: what was checkpointed before is all that is in it."""
    path = str(tmp_path / "j.db")
    store = Store(path)
    commit(store)
    assert wal.checkpoint(store, shrink=True)
    commit(store)
    before = (tmp_path / "j.db").read_bytes()
    os.truncate(path + "-wal", os.path.getsize(path + "-wal") // 2)
    commit(store)
    assert not store.sqlite_files.are_at_path()
    assert not wal.checkpoint(store, shrink=True)
    wal.Backfill(store).run()
    assert (tmp_path / "j.db").read_bytes() == before
    with store.lock, store.reading() as conn:
        assert conn.execute("SELECT count(*) FROM entries").fetchone()[0] == 9, "the connection still sees them"
    store.give_up()


@pytest.mark.parametrize("lost", [1, 100, 4_000], ids=str)
def test_a_cut_of_less_than_a_block_is_found_after_sqlite_has_written_on_behind_it(tmp_path, lost):
    """It leaves neither a hole nor a frame without its header, only zeros: the checksum of that frame tells."""
    path = str(tmp_path / "j.db")
    store = Store(path)
    commit(store)
    assert store.sqlite_files.are_whole()
    commit(store)
    while not (tmp_path / "j.db-wal").read_bytes()[-1]:  # one time in 256; a zero that is cut off comes back as itself
        commit(store)
    os.truncate(path + "-wal", os.path.getsize(path + "-wal") - lost)
    commit(store)
    assert not store.sqlite_files.are_whole()
    store.give_up()


def test_frames_that_end_in_zeros_as_they_should_are_no_cut(tmp_path):
    """A large record's last page is seldom full."""
    store = Store(str(tmp_path / "j.db"))
    assert store.sqlite_files.are_whole()
    commit(store, 2, "x" * 9_000)
    raw = (tmp_path / "j.db-wal").read_bytes()
    assert any(raw[at - 1] == 0 for at in range(len(raw), 32, -4_120)), "or this shows nothing"
    assert store.sqlite_files.are_whole()
    store.close()


def test_a_small_cut_beneath_records_that_their_callers_sync_is_found_soon(tmp_path, poll, capsys):
    """Nothing is left to sync, but the keeper looks within the interval all the same."""
    path = str(tmp_path / "j.db")
    (tmp_path / "as a kill leaves them").mkdir()
    handler = DurableHandler(None, path, sync_level="NOTSET", sync_interval=0.1)
    log = logging.Logger("synced")
    log.addHandler(handler)
    chores = handler._engine.keeper._chores
    for i in range(10):
        log.info("m%d", i)
    assert poll(lambda: not chores.unseen), "the keeper has looked"
    os.truncate(path + "-wal", os.path.getsize(path + "-wal") - 100)
    log.info("m10")
    said = []  # of 10 or 11: the keeper may be faster than the last record
    assert poll(lambda: said.append(capsys.readouterr().err) or "pending records were copied" in "".join(said)), said
    assert poll(lambda: handler.stats().pending == 11)
    subprocess.run(["cp", path, path + "-wal", tmp_path / "as a kill leaves them"], check=True)
    with Journal(tmp_path / "as a kill leaves them" / "j.db") as journal:
        assert len(list(journal.entries())) == 11
    handler.close()


def frames_left(store):
    """How many are left to the look under the lock."""
    index = wal_check.read_index(os.pread(store.sqlite_files._all["-shm"].number, 96, 0))
    return index.frames - wal_check._first(index, store.sqlite_files._wal_check._last) + 1


@pytest.fixture
def ahead(tmp_path, monkeypatch):
    """A store, and what is called with each part of a look ahead, five frames each."""
    store, calls = Store(str(tmp_path / "j.db")), []
    real = wal_check.Part.is_sound

    def is_sound(part, fd):
        for call in calls:
            call(part)
        return real(part, fd)

    monkeypatch.setattr(wal_check.Part, "is_sound", is_sound)
    monkeypatch.setattr(wal_check, "_SLICE", 5)
    commit(store, 20)
    yield store, calls
    store.give_up()


def test_a_look_ahead_is_beside_commits_and_leaves_few_frames_to_the_look_under_the_lock(ahead):
    """Callers commit while it reads; what they add is looked at as well."""
    store, calls = ahead
    depths = []
    calls.append(lambda part: depths.append(store.lock.depth()))
    calls.append(lambda part: commit(store, 1) if part.first < 10 else None)
    wal.look_ahead(store)
    assert len(depths) > 3
    assert set(depths) == {0}
    assert frames_left(store) <= 5
    assert store.sqlite_files.are_whole()


def test_a_wal_that_is_begun_anew_under_a_look_ahead_is_no_cut(ahead):
    """The part is given up, and the look under the lock finds all that is there."""
    store, calls = ahead
    calls.append(lambda part: wal.checkpoint(store, shrink=False) and calls.clear())
    wal.look_ahead(store)
    assert calls == []
    assert store.sqlite_files.are_whole()


def test_a_part_of_a_file_that_was_closed_meanwhile_says_nothing_of_the_one_that_is_open(ahead):
    """A fork closes the connection between two parts; the next one has seen nothing yet."""
    store, calls = ahead
    calls.append(lambda part: store.before_fork() or commit(store, 9) or calls.clear())
    wal.look_ahead(store)
    assert calls == []
    assert store.sqlite_files._wal_check._last is None
    assert store.sqlite_files.are_whole()


def test_a_cut_under_a_look_ahead_is_found_by_the_look_under_the_lock(ahead):
    """What was sound is cut off afterwards: the last frame that was seen is looked at once more."""
    store, calls = ahead
    calls.append(lambda part: part.first > 5 and (os.truncate(f"{store.path}-wal", 9_000) or calls.clear()))
    wal.look_ahead(store)
    assert calls == []
    assert not store.sqlite_files.are_whole()


CUT = """
import logging, os, sys
from lastwords import DurableHandler
from lastwords.journal import wal_check
path, looked = sys.argv[1:]
if looked == "no": wal_check.WalCheck.look = lambda *_: True
log = logging.Logger("x"); handler = DurableHandler(None, path, sync_interval=100); log.addHandler(handler)
for i in range(20): log.info("m%d", i)
os.truncate(path + "-wal", 0)
for i in range(20, 40): log.info("m%d", i)
handler.flush()
os._exit(0)
"""


@pytest.mark.parametrize("looked", ["yes", "no"])
def test_what_a_killed_process_had_committed_to_a_wal_that_was_cut_is_there(children, tmp_path, looked):
    """What was in its cache, too. Control: without the look all of it is gone, and nothing is said."""
    _, said, _ = children.run(CUT, tmp_path / "j.db", looked)
    with Journal(tmp_path / "j.db") as journal:
        found = [entry.message for entry in journal.entries()]
    assert found == ([f"m{i}" for i in range(40)] if looked == "yes" else [])
    assert ("pending records were copied" in said) is (looked == "yes")
