"""Where no thread can be started, and where one can be again."""

import logging
import sys
import threading

import pytest

from lastwords import DurableHandler
from lastwords.runtime import thread as thread_module


@pytest.fixture
def limit(monkeypatch):
    """Forbid threads as a limit on processes does; an empty list allows them again."""
    limited = [True]
    start = threading.Thread.start

    def start_within_limits(thread):
        if limited:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_within_limits)
    monkeypatch.setattr(thread_module, "AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(thread_module, "_shortage", thread_module._Shortage())
    return limited


@pytest.mark.parametrize("level", [logging.INFO, logging.ERROR], ids=["synced by the keeper", "synced by the caller"])
@pytest.mark.parametrize(
    "commit_only", [pytest.param(True, marks=pytest.mark.slow), False], ids=["commit only", "delivering"]
)
def test_records_are_committed_and_it_is_said_once_and_recovered_from(tmp_path, limit, capfd, commit_only, level):
    """One line when it begins, one when it is over, whatever the handlers are for; then the threads are there."""
    came = []
    target = None if commit_only else lambda entries: came.extend(e.message for e in entries)
    handler = DurableHandler(target, tmp_path / "j.db", sync_interval=0.001)
    log = logging.Logger("app")
    log.addHandler(handler)
    for n in range(50):
        log.log(level, "%d", n)
    if level < logging.ERROR or not commit_only:
        assert capfd.readouterr().err.count("no thread can be started") == 1
    assert handler.stats().pending == 50
    assert handler.stats().buffered == 0
    limit.clear()
    for n in range(50, 600):
        log.log(level, "%d", n)
    assert commit_only or handler.drain(20)
    names = {thread.name for thread in threading.enumerate()}
    if level < logging.ERROR:
        assert "lastwords-keeper" in names
    if not commit_only:
        assert "lastwords-courier" in names
        assert came == [str(n) for n in range(600)]
    assert capfd.readouterr().err.count("threads can be started again") <= 1
    handler.close()


def test_the_end_delivers_without_a_thread(tmp_path, limit):
    """close() is enough."""
    came = []
    handler = DurableHandler(lambda entries: came.extend(e.message for e in entries), tmp_path / "j.db")
    log = logging.Logger("app")
    log.addHandler(handler)
    log.info("one")
    assert came == []
    handler.close()
    assert came == ["one"]


@pytest.mark.parametrize("error", [MemoryError(), OSError(11, "no thread"), TypeError("start() was patched")], ids=repr)
def test_whatever_the_start_of_a_thread_raises_stays_with_us(tmp_path, limit, monkeypatch, capfd, error):
    """It is as if there were a limit on threads: the application sees nothing, and the end delivers."""

    def start(thread):
        raise error

    monkeypatch.setattr(threading.Thread, "start", start)
    came = []
    handler = DurableHandler(lambda entries: came.extend(e.message for e in entries), tmp_path / "j.db")
    handler.handle(logging.makeLogRecord({"msg": "one", "levelno": logging.INFO}))
    handler.flush()
    handler.close()
    assert came == ["one"]
    assert repr(error) in capfd.readouterr().err


def test_without_a_stderr_no_thread_can_be_made_and_nothing_is_raised(tmp_path, monkeypatch):
    """``threading.Thread`` asks for sys.stderr, which a program may have deleted."""
    came = []
    handler = DurableHandler(lambda entries: came.extend(e.message for e in entries), tmp_path / "j.db")
    monkeypatch.delattr(sys, "stderr")
    handler.handle(logging.makeLogRecord({"msg": "one", "levelno": logging.INFO}))
    handler.close()
    assert came == ["one"]
