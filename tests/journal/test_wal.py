"""The -wal file: how full it is, and that it is reused under load and cut afterwards."""

import logging
import os
import random
import sqlite3

import pytest

from lastwords import DurableHandler
from lastwords.journal import files, wal
from lastwords.journal.new_schema import PAGE_SIZE
from lastwords.journal.store import Store
from lastwords.record import codec
from lastwords.upkeep import chores as chores_module
from lastwords.upkeep import keeper


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "j.db"))
    yield store
    store.close()


def commit(store, rows=1):
    row = codec.encode(logging.LogRecord("x", 20, "/x.py", 1, "m" * 300, (), None, "f"))
    for _ in range(rows):
        with store.lock, store.writing() as conn:
            conn.execute("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", row)


def frames_by_sqlite(path):
    """What SQLite says of the WAL: its second number is the frames in it. It moves them, which changes no frame."""
    conn = sqlite3.connect(path)
    try:
        return conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    finally:
        conn.close()


def test_fill_is_what_sqlite_counts(store):
    """Through growth and restarts, with old frames behind the new ones."""
    rng = random.Random(5)
    frame = wal.FRAME_HEADER + PAGE_SIZE
    for _ in range(12):
        commit(store, rng.randrange(1, 60))
        assert wal.fill(store) == frames_by_sqlite(store.path) * frame
        if rng.random() < 0.5:
            size = wal.file_size(store)
            assert wal.checkpoint(store, shrink=False)
            assert wal.file_size(store) >= size  # begun anew, not cut
            assert wal.fill(store) == frame  # the keeper's own commit
    assert wal.checkpoint(store, shrink=True)
    assert wal.file_size(store) < 10_000


def test_fill_without_a_file(store):
    """Nothing was committed since the WAL was removed."""
    path = store.path
    store.close()
    assert wal.fill(store) == 0
    assert store.path == path


@pytest.mark.slow
def test_under_load_the_wal_is_reused_and_afterwards_cut(tmp_path, monkeypatch, poll):
    """It stays near CHECKPOINT_BYTES however much is logged, and small when nothing is."""
    monkeypatch.setattr(keeper, "CHECKPOINT_BYTES", 400_000)
    monkeypatch.setattr(keeper, "FLOOD_ROWS", 50)
    monkeypatch.setattr(keeper, "WAL_KEPT_BYTES", 100_000)
    monkeypatch.setattr(keeper, "SLACK_SECONDS", 0.3)
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 0.01)
    handler = DurableHandler(None, tmp_path / "j.db", sync_interval=0.5)
    log = logging.Logger("load")
    log.addHandler(handler)
    store = handler._engine.store
    sizes = []
    for i in range(12_000):
        log.info("m%d %s", i, "x" * 300)
        if i % 100 == 0:
            sizes.append(wal.file_size(store))
    assert max(sizes) < 30_000_000, "some 3,000,000 on an idle machine; 49,000,000 if it only grew"
    assert poll(lambda: wal.file_size(store) < 100_000), wal.file_size(store)
    assert handler.stats().pending == 12_000
    handler.close()


@pytest.mark.parametrize("slack", [60.0, 0.0])
def test_the_wal_is_not_cut_because_somebody_rings(tmp_path, monkeypatch, poll, slack):
    """Between two records, while the load goes on: only when none came for a while. Control: for no while."""
    monkeypatch.setattr(keeper, "WAL_KEPT_BYTES", 0)
    monkeypatch.setattr(keeper, "SLACK_SECONDS", slack)
    handler = DurableHandler(None, tmp_path / "j.db", sync_interval=0.05)
    log = logging.Logger("load")
    log.addHandler(handler)
    store, chores = handler._engine.store, handler._engine.keeper._chores
    for i in range(20):
        log.error("m%d %s", i, "x" * 300)
    assert poll(lambda: chores.quiet_since is not None)
    looks = []
    cut_wal = keeper.Keeper._cut_wal
    monkeypatch.setattr(keeper.Keeper, "_cut_wal", lambda self: (cut_wal(self), looks.append(1))[0])
    for times in (1, 2):
        handler._engine.keeper.nudge()
        assert poll(lambda times=times: len(looks) >= times)
    assert (wal.file_size(store) > 10_000) is (slack > 0)
    handler.close()


@pytest.mark.slow
def test_a_load_of_synced_records_does_not_fill_the_disk(tmp_path, monkeypatch, poll):
    """Their callers sync, so nothing is dirty; the keeper is told all the same, and the file is reused, not cut."""
    monkeypatch.setattr(keeper, "SYNCED_CHECKPOINT_BYTES", 400_000)
    monkeypatch.setattr(chores_module, "TELL_SYNCED", 50)
    handler = DurableHandler(None, tmp_path / "j.db", sync_level="NOTSET")
    log = logging.Logger("synced")
    log.addHandler(handler)
    store = handler._engine.store
    sizes, fills = [], []
    for i in range(1_500):
        log.info("m%d %s", i, "x" * 300)
        sizes.append(wal.file_size(store))
        fills.append(wal.fill(store))
    assert max(sizes) < 4_500_000, "6,000,000 if nobody looked, and a busy machine looks late"
    assert min(fills[200:]) < 200_000 < 400_000 <= min(sizes[500:]), "begun anew, in a file that stays"
    assert handler.stats().pending == 1_500
    handler.close()


@pytest.mark.slow
def test_a_pause_for_tidying_does_not_delay_the_sync(tmp_path, poll, monkeypatch):
    """A record that comes while the keeper waits to prune is synced within sync_interval."""
    import time

    monkeypatch.setattr(keeper, "TIDY_SECONDS", 50.0)
    handler = DurableHandler(lambda entries: None, tmp_path / "j.db", sync_interval=0.1)
    log = logging.Logger("sync")
    log.addHandler(handler)
    committer = handler._engine.committer
    for i in range(5):
        log.info("m%d", i)  # delivered at once, so there is something to prune each time
        assert poll(lambda: not committer.dirty, 30, every=0.002)
        time.sleep(0.03)
    handler.close()


# --- most of a checkpoint beside commits ------------------------------------------------------------------------


def test_a_backfill_leaves_little_to_the_checkpoint(store):
    """What was committed before it is in the database afterwards, and the WAL is as it was."""
    commit(store, 500)
    before = wal.fill(store)
    wal.Backfill(store).run()
    assert wal.fill(store) == before + wal.FRAME_HEADER + PAGE_SIZE  # its own commit
    immutable = sqlite3.connect(f"file:{store.path}?immutable=1", uri=True)  # the database without its WAL
    assert immutable.execute("SELECT count(*) FROM entries").fetchone()[0] == 500
    immutable.close()


def test_nobody_resets_the_wal_while_a_backfill_runs(store, monkeypatch):
    """The guard reads: a commit and a checkpoint of others, in the middle of it, only append."""
    commit(store, 50)
    side = Store.side_connection
    salts, seen = [], []

    def header():
        with open(store.path + wal.SUFFIX, "rb") as f:
            return f.read(32)[16:24]

    class Worker:
        """The second connection: others get in right before it does its work."""

        def __init__(self, conn):
            self.conn = conn

        def execute(self, sql):
            salts.append(header())
            other = sqlite3.connect(store.path, isolation_level=None, timeout=0)
            seen.append(other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
            other.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('other', '1')")
            other.close()
            salts.append(header())
            return self.conn.execute(sql)

        def close(self):
            self.conn.close()

    made = []

    def both(self):
        made.append(side(self))
        return made[-1] if len(made) == 1 else Worker(made[-1])

    monkeypatch.setattr(Store, "side_connection", both)
    wal.Backfill(store).run()
    assert seen == [1], "busy: a reader is in the way"
    assert salts[0] == salts[1]
    other = sqlite3.connect(store.path, isolation_level=None, timeout=0)
    assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, "the control: afterwards it can"
    other.close()


@pytest.mark.slow
def test_a_fork_waits_for_a_backfill(store, monkeypatch):
    """Its connections must not be open in a child."""
    import os
    import threading
    import time

    inside, over, side = threading.Event(), [], Store.side_connection
    backfill = wal.Backfill(store)
    commit(store, 50)

    def slow(self):
        conn = side(self)
        inside.set()
        time.sleep(0.3)
        over.append(True)
        return conn

    monkeypatch.setattr(Store, "side_connection", slow)
    thread = threading.Thread(target=backfill.run)
    thread.start()
    assert inside.wait(10)
    pid = os.fork()
    if pid == 0:
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit() and int(fd) > 2
                 and os.path.exists(f"/proc/self/fd/{fd}")]  # fmt: skip
        os._exit(1 if any(link.startswith(store.path) for link in links) else 0)
    assert over
    assert os.waitpid(pid, 0)[1] == 0
    thread.join(10)
    commit(store, 1)


def test_a_signal_handler_that_forks_amid_a_commit_does_not_lock_out_a_backfill(store):
    """It has the store's lock and wants the backfill's, which must not be held by one who waits for the store's."""
    import os
    import threading
    import time

    backfill, started = wal.Backfill(store), threading.Event()
    thread = threading.Thread(target=lambda: (started.set(), backfill.run()))
    with store.lock:  # inside a commit
        thread.start()
        assert started.wait(10)
        time.sleep(0.1)  # now it waits
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert time.monotonic() - began < 5
    assert os.waitpid(pid, 0)[1] == 0
    thread.join(10)
    assert not thread.is_alive()


def test_what_is_moved_beside_callers_is_synced_beside_them(store, monkeypatch):
    """Else the checkpoint that empties the WAL syncs all of it, and they wait for that."""
    commit(store, 50)
    main, synced, sync = os.stat(store.path), [], files.sync_descriptor

    def noting(fd):
        synced.append((os.path.samestat(os.fstat(fd), main), store.lock.depth()))
        sync(fd)

    monkeypatch.setattr(files, "sync_descriptor", noting)
    wal.Backfill(store).run()
    assert synced == [(True, 0)]
