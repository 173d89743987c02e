"""Whether the -wal has what the -shm says of it: cuts are found, checkpoints are no cuts."""

import logging
import os

import pytest

from lastwords import Journal
from lastwords.journal import wal
from lastwords.journal.store import Store
from lastwords.record import codec


def commit(store, count=3):
    row = codec.encode(logging.LogRecord("x", 20, "/x.py", 1, "m", (), None, "f"))
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


CUT = """
import logging, os, sys
from lastwords import DurableHandler
from lastwords.journal import wal_check
path, looked = sys.argv[1:]
if looked == "no": wal_check.WalCheck.is_whole = lambda *_: True
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
