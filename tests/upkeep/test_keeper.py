"""The keeper: sync, checkpoint, prune, shed; and that the file does not grow without end."""

import logging
import os
import re
import sqlite3
import time

import pytest

from journals import remove
from lastwords import DurableHandler
from lastwords.journal import letters, tidy, wal
from lastwords.journal.line import Burial, Line
from lastwords.journal.store import Store
from lastwords.record import codec
from lastwords.upkeep import keeper


def fill(store, count, level=20, size=200, start=0):
    rows = []
    for i in range(start, start + count):
        rows.append(codec.encode(logging.LogRecord("x", level, "/x.py", 1, f"m{i} " + "x" * size, (), None, "f")))
    with store.lock, store.transaction() as conn:
        conn.executemany("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", rows)


def test_prune_deletes_settled_rows_in_slices_and_never_the_newest(tmp_path):
    """Nor what is pending, nor what keep_delivered keeps."""
    store = Store(str(tmp_path / "j.db"))
    journal = Line(store)
    fill(store, 1000)
    journal.settle(journal.cursor(), 700, 700)
    assert tidy.prune_slice(store, 3600) == 0
    assert tidy.prune_slice(store, 0) == tidy.PRUNE_ROWS
    while tidy.prune_slice(store, 0):
        pass
    assert journal.read(0, 2000)[0].seq == 701
    journal.settle(journal.cursor(), 1000, 300)
    while tidy.prune_slice(store, 0):
        pass
    assert [row.seq for row in journal.read(0, 10)] == [1000]


def test_a_prune_that_took_long_is_followed_by_a_smaller_one(tmp_path, monkeypatch):
    """Whose pages are many: callers wait for it."""
    handler = DurableHandler(None, tmp_path / "j.db")
    now, took, seen = [0.0], iter([0.1, 0.1, 0.0, 0.0, 0.0]), []

    def prune(store, keep, rows):
        seen.append(rows)
        now[0] += next(took)
        return 1

    monkeypatch.setattr(tidy, "prune_slice", prune)
    monkeypatch.setattr(keeper.time, "thread_time", lambda: now[0])
    try:
        for _ in range(5):
            handler._engine.keeper._prune()
        assert seen == [100, 50, 25, 50, 100]
    finally:
        monkeypatch.undo()
        handler.close()


def test_a_slice_of_vacuum_is_more_than_a_page(tmp_path):
    """execute() would make one step of it, and a burst of a million takes 110,000 slices."""
    store = Store(str(tmp_path / "j.db"))
    journal = Line(store)
    fill(store, 5_000)
    journal.settle(journal.cursor(), 5_000, 5_000)
    while tidy.prune_slice(store, 0):
        pass
    free = lambda: store.connection().execute("PRAGMA freelist_count").fetchone()[0]  # noqa: E731
    before = free()
    assert before > 300
    assert tidy.vacuum_slice(store, 0) is True
    assert before - free() == tidy.VACUUM_PAGES
    while tidy.vacuum_slice(store, 0):
        pass
    assert free() == 0
    store.close()


@pytest.mark.slow
def test_tidying_keeps_the_promise_of_sync_interval(tmp_path, poll, monkeypatch):
    """However long pruning takes, what is logged meanwhile is synced in time, and the WAL does not grow without end."""
    handler = DurableHandler(None, tmp_path / "j.db", sync_interval=0.2)
    engine = handler._engine
    log = logging.Logger("busy")
    log.addHandler(handler)
    pruning = []

    def endless(store, keep, rows=0):
        pruning.append(time.monotonic())
        return len(pruning) < 800

    monkeypatch.setattr(tidy, "prune_slice", endless)
    monkeypatch.setattr(keeper, "TIDY_SECONDS", 0.0)
    log.info("first")
    engine.keeper._chores.settled(1)
    assert poll(lambda: pruning, 30)
    syncs, sync, worst = [], engine.keeper.sync, 0
    monkeypatch.setattr(engine.keeper, "sync", lambda: (syncs.append(len(pruning)), sync()))
    while len(pruning) < 799:
        before, seen = len(pruning), len(syncs)
        log.info("more")
        assert poll(lambda seen=seen: len(syncs) > seen, every=0.005)
        worst = max(worst, syncs[seen] - before)
    assert worst < 400, "it was synced when all was pruned"
    handler.close()


@pytest.mark.slow
def test_a_burst_gives_its_space_back(tmp_path, poll, monkeypatch):
    """After 60,000 delivered records the file and the -wal are small again, by themselves."""
    monkeypatch.setattr(keeper, "SLACK_SECONDS", 1.0)
    handler = DurableHandler(lambda entries: None, tmp_path / "j.db", batch_size=1000, sync_interval=0.1)
    store = handler._engine.store
    fill(store, 60_000)
    before = os.path.getsize(tmp_path / "j.db") + wal.file_size(store)
    assert before > 20_000_000
    handler.flush()
    assert handler.drain(60)
    size = lambda: os.path.getsize(tmp_path / "j.db") + wal.file_size(store)  # noqa: E731
    assert poll(lambda: size() < 8_000_000, 60), size()
    handler.close()
    with sqlite3.connect(tmp_path / "j.db") as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_a_checkpoint_empties_the_wal_and_says_when_a_reader_is_in_the_way(tmp_path):
    """TRUNCATE, not PASSIVE; the first commit after it is the keeper's own."""
    store = Store(str(tmp_path / "j.db"))
    fill(store, 500)
    reader = sqlite3.connect(tmp_path / "j.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entries").fetchone()
    fill(store, 500)
    store.lock_timeout = 0.1
    store.connection().execute("PRAGMA busy_timeout=50")
    assert wal.checkpoint(store, shrink=True) is False
    reader.execute("COMMIT")
    assert wal.checkpoint(store, shrink=True) is True
    assert wal.file_size(store) < 50_000
    reader.close()


def test_shedding_takes_the_least_severe_oldest_first(tmp_path):
    """Five per cent at a time, counted by level, never the newest row, never what a courier may hold."""
    store = Store(str(tmp_path / "j.db"))
    journal = Line(store)
    fill(store, 2000, level=10)
    fill(store, 2000, level=40, start=2000)
    fill(store, 2000, level=10, start=4000)
    first = journal.read(0, 1)[0]
    dropped = tidy.shed(store, max_bytes=2_000_000)
    levels = [row.level for row in journal.read(0, 10_000)]
    assert 200 < dropped < 900
    assert levels.count(40) == 2000
    assert levels.count(10) == 4000 - dropped
    assert journal.read(0, 1)[0] == first  # the first thousand may be in a courier's hands
    assert journal.read(0, 10_000)[tidy.SHED_SPARES].level == 10
    assert journal.read(0, 10_000)[tidy.SHED_SPARES].seq == tidy.SHED_SPARES + dropped + 1
    stats = journal.stats()
    assert (stats.dropped, stats.pending) == (dropped, 6000 - dropped)
    assert [(drop.level, drop.records) for drop in journal.untold_drops()] == [(10, dropped)]


def test_what_is_spared_from_shedding_is_bounded_in_bytes(tmp_path):
    """A thousand large entries at the head of the line may be more than the journal may hold."""
    store = Store(str(tmp_path / "j.db"))
    fill(store, 300, size=10_000)
    dropped = tidy.shed(store, 2**20, excess=2_000_000)
    assert dropped >= 160
    (first,) = Line(store).read(0, 1)
    assert first.seq == 1  # the head is in somebody's hands, however large


def test_what_was_shed_in_a_couriers_hands_is_counted_once(tmp_path, monkeypatch):
    """A batch larger than what is spared: dropped and delivered, and settled once."""
    monkeypatch.setattr(tidy, "SHED_SPARES", 10)
    store = Store(str(tmp_path / "j.db"))
    journal = Line(store)
    fill(store, 100)
    cursor = journal.cursor()
    batch = journal.read(0, 80)
    dropped = tidy.shed(store, 100_000, excess=6_000)
    assert 20 < dropped < 85
    journal.settle(cursor, batch[-1].seq, len(batch))
    there = len(journal.read(80, 1000))
    assert journal.stats().pending == there > 0
    journal.settle(journal.cursor(), 100, there)
    assert journal.stats().pending == 0


@pytest.mark.slow
def test_a_flood_is_within_max_bytes_seconds_later(tmp_path, poll):
    """1 MiB set, 10 MB logged while the target is down: files and all."""
    path = str(tmp_path / "j.db")
    handler = DurableHandler(None, path, max_bytes=2**20, sync_interval=0.1)
    log = logging.Logger("flood")
    log.addHandler(handler)
    for number in range(1_000):
        log.log(40 if number % 10 == 0 else 20, "m%d %s", number, "x" * 10_000)

    def size():
        return sum(os.path.getsize(path + end) for end in ("", "-wal"))

    assert poll(lambda: size() <= 1.3 * 2**20, 20), size()
    with Line.open(path) as journal:
        there = list(journal.entries())
    assert there[-1].message.startswith("m999") and sum(e.level == 40 for e in there) > 15
    stats = handler.stats()
    assert stats.dropped > 800 and stats.pending == len(there) == 1_000 - stats.dropped
    handler.close()


@pytest.mark.slow
def test_a_reader_that_stays_does_not_make_the_wal_grow_without_end(tmp_path, poll, capfd):
    """Beyond a few times max_bytes records wait in memory; that is said, and over when the reader is gone."""
    path = str(tmp_path / "j.db")
    handler = DurableHandler(lambda entries: None, path, max_bytes=2**20, sync_interval=0.02, memory_limit=2**21)
    log = logging.Logger("read")
    log.addHandler(handler)
    log.info("first")
    assert handler.drain(60)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entries").fetchall()
    logged, end = 1, time.monotonic() + 30
    while not handler.stats().buffered and time.monotonic() < end:
        for _ in range(20):
            log.info("m %s", "x" * 20_000)
            logged += 1
        time.sleep(0.02)
    assert handler.stats().buffered
    assert os.path.getsize(path + "-wal") < 30 * 2**20  # how late it is noticed depends on the load
    assert "another program reads it" in capfd.readouterr().err
    reader.close()
    assert poll(lambda: not handler.stats().buffered, 30)
    assert handler.drain(60)
    stats = handler.stats()
    assert stats.delivered + stats.dropped >= logged and stats.pending == 0
    handler.close()


@pytest.mark.slow
def test_delivered_entries_are_pruned_before_anything_is_dropped(tmp_path, poll):
    """Even those that keep_delivered would keep."""
    handler = DurableHandler(None, tmp_path / "j.db", max_bytes=2**20, keep_delivered=3600, sync_interval=0.05)
    store, journal = handler._engine.store, handler._engine.journal
    fill(store, 6000)
    journal.settle(journal.cursor(), 4000, 4000)
    assert tidy.used_bytes(store) > 2**20
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("one more")
    assert poll(lambda: not handler._engine.keeper._is_over(), 20)  # nor does it look every second from now on
    stats = handler.stats()
    assert (stats.dropped, stats.pending) == (0, 2001)
    handler.close()


def test_an_overflow_during_an_outage_is_told_when_the_target_is_back(tmp_path, poll):
    """max_bytes holds, severe records survive, and one WARNING record says what was dropped."""
    down, got = [True], []

    def target(entries):
        if down[0]:
            raise ConnectionRefusedError
        got.extend((e.level, e.message) for e in entries)

    handler = DurableHandler(
        target, tmp_path / "j.db", max_bytes=2**20, sync_interval=0.05, retry_min=0.05, retry_max=0.1, sync_level=50
    )
    log = logging.Logger("x")
    log.addHandler(handler)
    engine = handler._engine
    count = 0
    end = time.monotonic() + 60
    while handler.stats().dropped == 0 and time.monotonic() < end:
        for _ in range(200):
            log.log(40 if count % 10 == 0 else 20, "m%d %s", count, "x" * 200)
            count += 1
        time.sleep(0.02)
    assert handler.stats().dropped > 0
    assert poll(lambda: tidy.used_bytes(engine.store) < 2 * 2**20, 30)
    down[0] = False
    handler.flush()
    assert handler.drain(60)

    def told():
        return [message for level, message in got if message.startswith("lastwords dropped")]

    def numbers(pattern):
        return [int(number.replace(",", "")) for text in told() for number in re.findall(pattern, text)]

    # One record mostly, another one if the keeper was shedding just then.
    assert poll(lambda: sum(numbers(r"dropped ([\d,]+) records \(")) == handler.stats().dropped, 20), told()
    assert len(told()) <= 2
    dropped = handler.stats().dropped
    # The first thousand pending entries are spared, whatever their level; severe ones go only after all others.
    errors = sum(numbers(r"ERROR ([\d,]*\d)"))
    assert sum(numbers(r"INFO ([\d,]*\d)")) + errors == dropped
    assert len([1 for level, _ in got if level == 40]) == (count + 9) // 10 - errors
    assert len(got) - len(told()) == count - dropped
    handler.close()


def test_the_keeper_notices_a_removed_journal_and_copies_what_is_pending(tmp_path, poll, capfd):
    """rm of all files under a live handler: pending entries and dead letters move into the new file, with their ids."""
    handler = DurableHandler(None, tmp_path / "j.db", sync_interval=0.05)
    log = logging.Logger("x")
    log.addHandler(handler)
    for i in range(50):
        log.info("m%d", i)
    with Line.open(tmp_path / "j.db") as journal:
        ids = [row.id for row in journal.read(0, 100)]
    remove(handler)
    log.info("m50")
    assert poll(lambda: (tmp_path / "j.db").exists(), 30)
    assert poll(lambda: "was removed or replaced" in capfd.readouterr().err, 30)
    log.info("m51")
    with Line.open(tmp_path / "j.db") as journal:
        rows = journal.read(0, 100)
        assert [journal.decode(row).message.split()[0] for row in rows] == [f"m{i}" for i in range(52)]
        assert [row.id for row in rows][:50] == ids
    handler.close()


@pytest.mark.parametrize("how", ["removed", "control"])
def test_a_removed_journal_at_a_fork(tmp_path, children, how):
    """The fork closes the connection, so it copies first; without that the pending entries are gone (the control)."""
    code = """
    import logging, os, sys
    from lastwords import DurableHandler; from lastwords.journal.line import Line; from lastwords.upkeep import recovery
    if sys.argv[2] == "control":
        recovery.Mover.run = lambda *_, **__: None
    h = DurableHandler(None, sys.argv[1], sync_interval=100); log = logging.Logger("x"); log.addHandler(h)
    for i in range(10): log.info("m%d", i)
    with h._engine.store.lock:  # at once, as far as the keeper can tell
        for name in os.listdir(os.path.dirname(sys.argv[1])):
            if "j.db" in name: os.unlink(os.path.join(os.path.dirname(sys.argv[1]), name))
    pid = os.fork()
    if pid == 0:
        log.info("child"); os._exit(0)
    os.waitpid(pid, 0)
    log.info("parent")
    print(len(Line.open(sys.argv[1]).read(0, 100)))
    os._exit(0)
    """
    (tmp_path / "d").mkdir()
    out, _, _ = children.run(code, tmp_path / "d" / "j.db", how)
    assert int(out) == (12 if how == "removed" else 2)


@pytest.mark.slow
def test_a_long_wal_is_no_reason_to_drop_what_is_pending(tmp_path, poll):
    """A reader keeps it from being cut; dropping entries would only make it longer."""
    handler = DurableHandler(None, tmp_path / "j.db", sync_interval=0.05, max_bytes=4 * 2**20)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("first")
    reader = sqlite3.connect(tmp_path / "j.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entries").fetchall()
    for i in range(1_000):
        log.info("m%d %s", i, "x" * 400)
    store = handler._engine.store
    assert poll(lambda: not handler._engine.committer.dirty)
    for _ in range(3):
        handler._engine.keeper.tick()
    assert wal.file_size(store) > 4 * 2**20, "the control: it is beyond max_bytes"
    assert handler.stats().pending == 1_001
    assert handler.stats().dropped == 0
    reader.close()
    handler.close()


@pytest.mark.parametrize("created", [4e9, 1e18, "soon", ""])
def test_an_entry_of_another_time_does_not_stop_pruning(tmp_path, created):
    """The clock was set back, or the row is damaged: what lies behind it is pruned all the same."""
    store = Store(str(tmp_path / "j.db"))
    journal = Line(store)
    fill(store, 200)
    with store.lock, store.transaction() as conn:
        conn.execute("UPDATE entries SET created = ? WHERE seq = 1", (created,))
    journal.settle(journal.cursor(), 200, 200)
    while tidy.prune_slice(store, 0.0):
        pass
    with store.lock, store.reading() as conn:
        assert conn.execute("SELECT count(*), max(seq) FROM entries").fetchone() == (1, 200)


def test_the_keeper_survives_whatever_a_journal_holds(tmp_path, poll, capfd, monkeypatch):
    """Nobody else syncs, retries or checkpoints."""
    handler = DurableHandler(None, tmp_path / "j.db", sync_interval=0.05)
    log = logging.Logger("x")
    log.addHandler(handler)

    def unforeseen(*_):
        raise TypeError("not an error of SQLite")

    with monkeypatch.context() as patched:
        patched.setattr(keeper.Mover, "run", unforeseen)
        log.info("a")
        said = []
        assert poll(lambda: said.append(capfd.readouterr().err) or "not an error of SQLite" in "".join(said), 30), said
    log.info("b")
    assert poll(lambda: not handler._engine.committer.dirty, 30)
    handler.close()


def test_a_scarce_level_is_looked_for_in_slices(tmp_path, monkeypatch):
    """One DEBUG entry behind a million others would keep callers waiting for as long as it takes to read those."""
    store = Store(str(tmp_path / "j.db"))
    monkeypatch.setattr(tidy, "SHED_SPARES", 5)
    monkeypatch.setattr(tidy, "SHED_SPAN", 10)
    monkeypatch.setattr(tidy, "SHED_ROWS", 3)
    fill(store, 100)
    fill(store, 1, level=10)
    fill(store, 20)
    assert tidy._shed_slice(store, 10, 0, 10**9, 10**9) == (0, 0, 15)
    assert tidy._shed_slice(store, 20, 0, 10**9, 10**9)[::2] == (3, 8)
    assert tidy._shed_slice(store, 10, 120, 10**9, 10**9)[::2] == (0, 121)
    assert tidy._shed_slice(store, 10, 121, 10**9, 10**9) == (0, 0, None)
    assert tidy.shed(store, 20 * 1_000) == 3  # 5 % of that are 1,000 bytes: the DEBUG entry, and two more
    with sqlite3.connect(store.path) as conn:
        left = [row[0] for row in conn.execute("SELECT seq FROM entries ORDER BY seq")]
        assert conn.execute("SELECT level, count FROM drops ORDER BY level").fetchall() == [(10, 1), (20, 5)]
    assert sorted(set(range(1, 122)) - set(left)) == [6, 7, 8, 9, 10, 101]
    store.close()


def test_dead_letters_are_requeued_in_slices(tmp_path, monkeypatch):
    """All of them, each once, in order; those who log wait for one transaction only."""
    monkeypatch.setattr(letters, "REDRIVE_ROWS", 7)
    store = Store(str(tmp_path / "j.db"))
    journal = Line(store)
    fill(store, 30)
    ids = [row.id for row in journal.read(0, 100)]
    burials = [Burial(seq, "no", None, 1, None) for seq in range(1, 31)]
    journal.mark(journal.cursor(), upto=30, delivered=0, buried=burials)
    begun = []
    real = Store.transaction
    monkeypatch.setattr(Store, "transaction", lambda self: begun.append(1) or real(self))
    assert journal.drop_dead(ids[:2]) == 2
    assert journal.retry_dead() == 28
    assert len(begun) == 1 + 4
    assert [row.id for row in journal.read(30, 100)] == ids[2:]
    assert journal.stats().dead == len(journal.dead_letters()) == 0
    store.close()


def test_what_is_shed_in_the_couriers_hands_is_counted_once(tmp_path):
    """Else pending would be too low, and what is left would wait for the next record."""
    store = Store(str(tmp_path / "j.db"))
    journal = Line(store)
    fill(store, 1_500, level=10)
    journal.mark(journal.cursor(), upto=0, delivered=1, ahead=[1_400])  # a probe, accepted
    cursor = journal.cursor()
    with store.lock, store.transaction() as conn:
        conn.execute("DELETE FROM entries WHERE seq = 1450")  # what shed() does, to an entry that is being probed
        conn.execute("UPDATE cursor SET consumed = consumed + 1")
    journal.mark(cursor, upto=0, delivered=1, ahead=[1_450])
    with store.lock, store.reading() as conn:
        left = conn.execute("SELECT count(*) FROM entries WHERE seq NOT IN (SELECT seq FROM ahead)").fetchone()[0]
    assert journal.stats().pending == left == 1_498
    # And a count that is off, for whatever reason, hides nothing.
    with store.lock, store.transaction() as conn:
        conn.execute("UPDATE cursor SET consumed = 99999")
    assert journal.has_pending()


def test_what_it_is_asked_for_amid_a_look_is_not_forgotten(tmp_path, poll, monkeypatch):
    """A caller found the file replaced while the keeper was past that: it looks again, and not in a minute."""
    handler = DurableHandler(None, tmp_path / "j.db")
    engine, looks = handler._engine, []
    real = engine.keeper.tick

    def tick():
        pause = real()
        looks.append(pause)
        if len(looks) == 1:
            engine.keeper.nudge()
        return pause

    monkeypatch.setattr(engine.keeper, "tick", tick)
    engine.keeper.nudge()
    assert poll(lambda: len(looks) >= 2, 20), looks
    handler.close()
