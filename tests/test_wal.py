"""The -wal file: how full it is, and that it is reused under load and cut afterwards."""

import logging
import random
import sqlite3

import pytest

from lastwords import DurableHandler, record, upkeep, wal
from lastwords.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "j.db"))
    yield store
    store.close()


def commit(store, rows=1):
    row = record.encode(logging.LogRecord("x", 20, "/x.py", 1, "m" * 300, (), None, "f"))
    for _ in range(rows):
        with store.writing() as conn:
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
    frame = wal.FRAME_HEADER + 4096
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


def test_under_load_the_wal_is_reused_and_afterwards_cut(tmp_path, monkeypatch, poll):
    """It stays near CHECKPOINT_BYTES however much is logged, and small when nothing is."""
    monkeypatch.setattr(upkeep, "CHECKPOINT_BYTES", 400_000)
    monkeypatch.setattr(upkeep, "WAL_KEPT_BYTES", 100_000)
    monkeypatch.setattr(upkeep, "SLACK_SECONDS", 0.3)
    monkeypatch.setattr(upkeep, "LOOK_SECONDS", 0.01)
    handler = DurableHandler(None, tmp_path / "j.db", sync_interval=0.5)
    log = logging.Logger("load")
    log.addHandler(handler)
    store = handler._engine.store
    sizes = []
    for i in range(12_000):
        log.info("m%d %s", i, "x" * 300)
        if i % 100 == 0:
            sizes.append(wal.file_size(store))
    assert max(sizes) < 12_000_000, "it would be 49,000,000 if it only grew"
    assert poll(lambda: wal.file_size(store) < 100_000, 10), wal.file_size(store)
    assert handler.stats().pending == 12_000
    handler.close()


def test_a_pause_for_tidying_does_not_delay_the_sync(tmp_path, poll):
    """A record that comes while the keeper waits to prune is synced within sync_interval."""
    import time

    handler = DurableHandler(lambda entries: None, tmp_path / "j.db", sync_interval=0.1)
    log = logging.Logger("sync")
    log.addHandler(handler)
    committer = handler._engine.committer
    worst = 0.0
    for i in range(15):
        log.info("m%d", i)  # delivered at once, so there is something to prune each time
        began = time.monotonic()
        assert poll(lambda: not committer.dirty, 5, every=0.002)
        worst = max(worst, time.monotonic() - began)
        time.sleep(0.03)
    assert worst < 0.6, "with the pause it was 1.1 s"
    handler.close()
