"""Whose turn it is when a caller waits for the store's lock: see lastwords.journal.turns."""

import logging
import threading

import pytest

from journals import pending
from lastwords import DurableHandler
from lastwords.delivery import supply
from lastwords.delivery.supply import Supply
from lastwords.journal import line, turns
from lastwords.journal.line import Line
from lastwords.journal.turns import MOST_TURNS, Turns


@pytest.mark.parametrize(
    ("answers", "slept"),
    [([0], 0), ([7, 7, 8], 1), ([7, 7, 7, 0], 2), ([7] * 99, MOST_TURNS)],
    ids=["nobody waits", "one commits", "one is gone", "one hangs"],
)
def test_a_thread_of_ours_waits_for_one_commit_and_not_for_ever(monkeypatch, answers, slept):
    """It sleeps while the caller that waited does, a few times at most."""
    seconds, left = [], iter(answers)
    monkeypatch.setattr(turns, "sleep", seconds.append)
    turn = Turns()
    turn.waiting = lambda: next(left)
    turn.let_callers()
    assert len(seconds) == slept


def test_a_caller_that_waits_for_the_lock_is_known_until_it_has_committed(tmp_path, poll):
    """Nobody waits in an idle journal, somebody does behind a thread of ours that has the lock."""
    handler = DurableHandler(None, tmp_path / "j.db")
    logger = logging.Logger("t")
    logger.addHandler(handler)
    store = handler._engine.store
    try:
        assert store.turns.waiting() == 0
        caller = threading.Thread(target=logger.info, args=("x",))
        with store.lock:
            caller.start()
            poll(store.turns.waiting)
        caller.join(60)
        assert store.turns.waiting() == 0
        assert handler.stats().pending == 1
    finally:
        handler.close()


@pytest.mark.parametrize(("flood", "turns_"), [(9, 3 + 4), (8, 3 + 1)], ids=["few", "a flood"])
def test_callers_are_let_in_between_reading_and_decoding_and_while_that_lasts(tmp_path, monkeypatch, flood, turns_):
    """After each slice that is read, and between some entries, fewer times in a flood; the lock is free each time."""
    path = tmp_path / "j.db"
    pending(path, 9)
    monkeypatch.setattr(line, "READ_ROWS", 3)
    monkeypatch.setattr(supply, "BETWEEN", 2)
    monkeypatch.setattr(supply, "SLICE", 5)
    monkeypatch.setattr(supply, "FLOOD", flood)
    depths = []
    with Line.open(path) as journal:
        journal.store.turns.waiting = lambda: depths.append(journal.store.lock.depth()) or 0
        assert len(Supply().take(journal, 0, 9)) == 9
    assert depths == [0] * turns_


def test_a_caller_is_let_in_before_the_mark(tmp_path):
    """What the target took is marked after the caller that came during the call has had its turn."""
    path, seen = tmp_path / "j.db", []
    handler = DurableHandler(lambda entries: seen.append("call"), path)
    try:
        store = handler._engine.store
        store.turns.waiting = lambda: seen.append(handler.stats().pending) or 0
        logging.Logger("t").addHandler(handler)
        handler.handle(logging.makeLogRecord({"msg": "x", "levelno": logging.INFO}))
        assert handler.drain(60)
        assert seen[seen.index("call") + 1] == 1, "not marked yet"
    finally:
        handler.close()
