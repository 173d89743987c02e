"""What is on its way out of damaged files when the process ends, and what the application is told meanwhile."""

import json
import logging
import sqlite3
import threading

import pytest

from lastwords import DurableHandler
from lastwords.errors import JournalBusy, JournalDamaged, JournalError
from lastwords.journal import files, set_aside, transfer, wal
from lastwords.journal.line import Line
from lastwords.journal.old_file import OldFile
from lastwords.journal.salvage import Salvage
from lastwords.journal.store import Store
from lastwords.runtime.clock import monotonic
from lastwords.upkeep.recovery import Mover

COUNT = 60


@pytest.fixture
def aside(tmp_path, monkeypatch):
    """The path of a journal whose damaged file was just set aside, and is to be moved in many slices."""
    path = str(tmp_path / "j.db")
    handler = DurableHandler(None, path)
    for i in range(COUNT):
        handler.handle(logging.makeLogRecord({"msg": f"m{i}"}))
    handler.close()
    set_aside.set_aside(path, files.identify(path), "by a test", is_damaged=True)
    for name in ("FIRST_ROWS", "LEAST_ROWS", "MOST_ROWS"):
        monkeypatch.setattr(transfer, name, 20)
    return path


def messages(path):
    with Line.open(path) as journal:
        return [json.loads(row.payload)["message"] for row in journal.read(0, COUNT * 2)]


def test_at_the_exit_what_is_left_of_a_damaged_file_waits_for_the_next_start(aside, capfd):
    """The time is up: one slice is moved, the marker stays, it is said once, and the next one goes on to the end."""
    for _ in range(2):
        store = Store(aside)
        Mover(store).run(None, until=monotonic() - 1)
        store.close()
    assert 0 < len(messages(aside)) < COUNT
    assert set_aside.unfinished(aside)
    assert capfd.readouterr().err.count("waits for the next start") == 2  # of two processes
    handler = DurableHandler(None, aside)
    handler.close()
    assert sorted(messages(aside)) == sorted(f"m{i}" for i in range(COUNT))
    assert "was damaged" in capfd.readouterr().err


def test_a_damaged_file_is_given_up_when_what_came_of_it_is_on_the_medium(aside, monkeypatch):
    """Its slices are not synced, and are read without the store's lock. A sync that fails is made up for."""
    store = Store(aside)
    events, sync, done, fetch = [], wal.sync, Salvage.done, Salvage.fetch

    def failing_once(store):
        events.append("sync")
        if events.count("sync") == 1:
            raise OSError("the medium")
        sync(store)

    monkeypatch.setattr(wal, "sync", failing_once)
    monkeypatch.setattr(Salvage, "done", lambda *args: events.append("given up") or done(*args))
    monkeypatch.setattr(Salvage, "fetch", lambda *args: events.append(store.lock.depth()) or fetch(*args))
    mover = Mover(store)
    with pytest.raises(OSError, match="the medium"):
        mover.run(None)
    assert "given up" not in events and store.filling
    mover.run(None)
    assert [event for event in events if event != 0] == ["sync", "sync", "given up"]
    assert not store.filling and not mover.left and 0 in events
    store.close()
    assert sorted(messages(aside)) == sorted(f"m{i}" for i in range(COUNT))


def test_a_signal_handler_that_moves_all_amid_a_read_closes_nothing_under_the_reader(aside, monkeypatch):
    """SQLite would be read on behind its end. What the outer read had is not used any more."""
    store = Store(aside)
    mover, rows, seen = Mover(store), OldFile.rows, []

    def interrupted(old, *args, **kwargs):
        if not seen and mover._forks.fork_lock.depth():
            seen.append(old.conn)
            mover.run(None)
            assert not mover.left
            assert old.conn.execute("SELECT 1").fetchone() == (1,)
        return rows(old, *args, **kwargs)

    monkeypatch.setattr(OldFile, "rows", interrupted)
    mover.run(None)
    assert len(seen) == 1
    seen[0].close()
    store.close()
    assert sorted(messages(aside)) == sorted(f"m{i}" for i in range(COUNT))


def test_a_file_that_another_thread_reads_is_closed_when_that_is_over(aside, monkeypatch, poll):
    """Two threads move it at once, and one is done."""
    store = Store(aside)
    mover, rows, reading, was_closed = Mover(store), OldFile.rows, threading.Event(), []
    mover.step(None)  # it is begun
    transfer = mover._under_way[0]
    conn = transfer.old.conn

    def is_closed():
        try:
            return conn.total_changes < 0
        except sqlite3.ProgrammingError:
            return True

    def slowly(old, *args, **kwargs):
        if threading.current_thread() is reader and not was_closed:
            reading.set()
            poll(lambda: not mover._under_way, 30)
            was_closed.append(poll(is_closed, 0.05))
        return rows(old, *args, **kwargs)

    monkeypatch.setattr(OldFile, "rows", slowly)
    reader = threading.Thread(target=lambda: mover.step(None))
    reader.start()
    assert reading.wait(30)
    mover._finish(transfer)
    reader.join(30)
    assert was_closed == [False]
    assert is_closed()
    store.close()


@pytest.mark.parametrize("is_ending", [True, False])
def test_only_the_end_of_the_process_leaves_a_salvage_unfinished(aside, monkeypatch, is_ending):
    """The keeper's own way: with the exit's deadline behind it, it leaves the rest; the control moves all."""
    handler = DurableHandler(None, aside + ".other")
    store = Store(aside)
    keeper = handler._engine.keeper
    keeper._mover = Mover(store)
    monkeypatch.setattr("lastwords.runtime.exit._exit_deadline", monotonic() - 1 if is_ending else None)
    keeper.move()
    assert bool(keeper.moving) is is_ending
    monkeypatch.undo()
    keeper.move()
    assert not keeper.moving
    store.close()
    handler.close()


@pytest.mark.parametrize("kind", [JournalDamaged, JournalError, JournalBusy])
def test_stats_of_a_journal_that_cannot_be_read_is_what_was_known(tmp_path, monkeypatch, kind):
    """The application never sees an exception: the last numbers with the reason; damage is noted for the keeper."""
    handler = DurableHandler(None, tmp_path / "j.db")
    handler.handle(logging.makeLogRecord({"msg": "m"}))
    assert handler.stats().pending == 1

    def fails(*_, **__):
        raise kind(handler._engine.store.path, "what SQLite says")

    met = []
    monkeypatch.setattr(handler._engine.keeper, "meets", met.append)
    monkeypatch.setattr(Line, "stats", fails)
    stats = handler.stats()
    monkeypatch.undo()
    assert stats.pending == 1 and "what SQLite says" in stats.last_error
    assert [type(error) for error in met] == [kind]
    handler.close()
