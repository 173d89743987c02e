"""SQLite fails at the Nth call, once or from then on: no exception, one wait, one line on stderr, nothing lost."""

import logging
import sqlite3
import threading
import time

import pytest

from journals import pending
from lastwords import DurableHandler
from lastwords.journal import store
from lastwords.upkeep import keeper

CODES = {
    "FULL": (sqlite3.SQLITE_FULL, "database or disk is full"),
    "BUSY": (sqlite3.SQLITE_BUSY, "database is locked"),
    "IOERR": (sqlite3.SQLITE_IOERR, "disk I/O error"),
    "READONLY": (sqlite3.SQLITE_READONLY, "attempt to write a readonly database"),
}


class Faults:
    """Connections whose ``execute`` fails on command."""

    def __init__(self, monkeypatch):
        self.calls, self.fail_at, self.lasts, self.code, self.failures = 0, None, False, None, 0
        real = sqlite3.Connection
        faults = self

        class Faulty(real):
            def execute(self, *args):
                faults.step()
                return super().execute(*args)

        connect = sqlite3.connect
        monkeypatch.setattr(store.sqlite3, "connect", lambda *a, **k: connect(*a, factory=Faulty, **k))

    def arm(self, code, after, lasts):
        self.code, self.fail_at, self.lasts, self.calls, self.failures = code, after, lasts, 0, 0

    def disarm(self):
        self.fail_at = None

    def step(self):
        if self.fail_at is None:
            return
        self.calls += 1
        if self.calls == self.fail_at or (self.lasts and self.calls > self.fail_at):
            self.failures += 1
            code, text = CODES[self.code]
            error = sqlite3.OperationalError(text)
            error.sqlite_errorcode = code
            raise error


@pytest.fixture
def faults(monkeypatch):
    made = Faults(monkeypatch)
    yield made
    made.disarm()  # a handler of a test that failed is closed in another one


@pytest.mark.parametrize("lasts", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("nth", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("code", CODES)
def test_a_failing_journal_never_reaches_the_application(tmp_path, faults, capfd, poll, code, nth, lasts):
    """While it fails records wait in memory; afterwards all arrive, in order, once; stderr has one line for each turn."""
    got = []
    handler = DurableHandler(got.extend, tmp_path / "j.db", sync_interval=0.05, retry_min=0.02, retry_max=0.05)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("m0")
    assert handler.drain(60)
    faults.arm(code, nth, lasts)
    began = time.monotonic()
    for i in range(1, 60):
        log.log(20 + 20 * (i % 2), "m%d", i)
    assert time.monotonic() - began < 20
    assert poll(lambda: faults.failures, 30)
    if lasts:
        assert handler._engine.committer.buffered > 0
    faults.disarm()
    assert poll(lambda: handler._engine.committer.buffered == 0, 30)
    assert handler.drain(60)
    assert [entry.message for entry in got] == [f"m{i}" for i in range(60)]
    stats = handler.stats()
    assert (stats.pending, stats.delivered, stats.dropped, stats.dead) == (0, 60, 0, 0)
    handler.close()
    err = capfd.readouterr().err
    assert err.count("takes no records") <= 1 + (not lasts)
    assert len(err.splitlines()) <= 6, err
    assert len({entry.id.rpartition("-")[0] for entry in got}) == 1


def test_accepted_entries_that_cannot_be_marked_are_not_delivered_again(tmp_path, faults, poll):
    """The disk is full when the mark is due: only the mark is tried again, nothing more is delivered meanwhile."""
    got, made = [], threading.Event()

    def target(entries):
        assert made.wait(30)
        got.extend(entry.message for entry in entries)
        if len(got) == 3:
            faults.arm("FULL", 1, True)

    pending(tmp_path / "j.db", 9)
    handler = DurableHandler(target, tmp_path / "j.db", batch_size=3, retry_min=0.02, retry_max=0.05)
    made.set()
    assert poll(lambda: faults.failures > 5, 30)
    assert got == ["m0", "m1", "m2"]
    faults.disarm()
    assert handler.drain(60)
    assert got == [f"m{i}" for i in range(9)]
    handler.close()


@pytest.mark.slow
def test_a_quota_is_kept_and_marks_still_work(tmp_path, poll, capfd, monkeypatch):
    """max_page_count as a full disk: records go to memory, delivery empties the journal, and they follow."""
    monkeypatch.setattr(keeper, "TROUBLE_SECONDS", 0.02)
    got, down = [], [True]

    def target(entries):
        if down[0]:
            raise ConnectionRefusedError
        got.extend(entry.message.split()[0] for entry in entries)

    handler = DurableHandler(target, tmp_path / "j.db", sync_interval=0.05, retry_min=0.02, retry_max=0.05)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("m0 x")
    conn = handler._engine.store.connection()
    pages = conn.execute("PRAGMA page_count").fetchone()[0]
    conn.execute(f"PRAGMA max_page_count={pages + 20}")
    for i in range(1, 400):
        log.info("m%d %s", i, "x" * 400)
    assert handler.stats().buffered > 100
    down[0] = False
    handler.flush()
    assert poll(lambda: len(got) == 400, 120), (len(got), handler.stats(), capfd.readouterr().err)
    assert got == [f"m{i}" for i in range(400)]
    assert handler.stats().dropped == 0
    handler.close()
