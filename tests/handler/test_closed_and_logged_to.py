"""A handler that somebody closed and that is logged to again is as good as new, as FileHandler reopens its file."""

import glob
import logging
import logging.config
import os
import subprocess
import sys
import threading

import pytest

from lastwords import DurableHandler


def by_dictconfig(handler):
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})


def by_shutdown(handler):
    logging.shutdown([lambda: handler])


def by_the_user(handler):
    handler.close()


@pytest.fixture
def log():
    return logging.Logger("app")


@pytest.mark.parametrize("close", [by_dictconfig, by_shutdown, by_the_user])
def test_it_delivers_syncs_and_closes_again(tmp_path, log, close):
    """Twice, as an application may be configured more than once."""
    came = []
    handler = DurableHandler(lambda entries: came.extend(e.message for e in entries), tmp_path / "j.db")
    log.addHandler(handler)
    for word in ("one", "two", "three"):
        log.info(word)
        assert handler.drain(60)
        close(handler)
    assert came == ["one", "two", "three"]
    log.info("four")
    handler.close()
    assert came[-1] == "four"
    assert handler.stats().pending == 0


def test_a_file_target_is_written_to_again(tmp_path, log):
    """The target was closed, too; a FileHandler that began with an empty file goes on with it."""
    handler = DurableHandler(logging.FileHandler(tmp_path / "out", mode="w"), tmp_path / "j.db")
    log.addHandler(handler)
    for word in ("one", "two"):
        log.error(word)
        handler.close()
    assert (tmp_path / "out").read_text().split() == ["one", "two"]


def test_what_is_logged_while_it_is_being_closed_is_delivered(tmp_path, log):
    """A record between the closing and its end begins it anew; one thread at a time is inside the target."""
    inside, go, came = threading.Event(), threading.Event(), []

    def deliver(entries):
        inside.set()
        assert go.wait(20)
        came.extend(entry.message for entry in entries)

    handler = DurableHandler(deliver, tmp_path / "j.db", drain_timeout=0.05)
    log.addHandler(handler)
    log.error("one")
    assert inside.wait(20)
    handler.close()  # the target hangs
    log.error("two")
    go.set()
    assert handler.drain(60)
    assert came == ["one", "two"]
    handler.close()


@pytest.mark.slow
def test_max_bytes_holds_again(tmp_path, log):
    """There is a keeper again."""
    handler = DurableHandler(None, tmp_path / "j.db", max_bytes=2**20)
    log.addHandler(handler)
    log.info("one")
    handler.close()
    for _ in range(1_500):
        log.info("x" * 3_000)
    for _ in range(200):
        if sum(os.path.getsize(p) for p in glob.glob(f"{tmp_path}/j.db*")) < 4 * 2**20:
            break
        threading.Event().wait(0.05)
    else:
        pytest.fail("the journal stays too large")
    handler.close()


def test_the_journal_is_free_for_another_handler(tmp_path, log, poll):
    """One that was closed and logged to by mistake steps aside, and what it is given is delivered by the other."""
    first, second = [], []
    old = DurableHandler(lambda entries: first.extend(e.message for e in entries), tmp_path / "j.db")
    log.addHandler(old)
    old.close()
    log.error("one")
    assert old.drain(60)
    assert poll(lambda: old._engine.courier.asleep)  # else it may still take what comes next
    new = DurableHandler(lambda entries: second.extend(e.message for e in entries), tmp_path / "j.db")
    log.error("two")
    assert new.drain(60)
    assert (first, second) == (["one"], ["two"])
    new.close()
    old.close()


@pytest.mark.slow
def test_the_exit_knows_it(tmp_path):
    """A program that ends right after a record to a handler which was closed."""
    source = f"""
import logging, logging.config
from lastwords import DurableHandler
log = logging.getLogger("app")
log.addHandler(DurableHandler("file:{tmp_path}/out?format=json", "{tmp_path}/j.db"))
logging.config.dictConfig({{"version": 1, "disable_existing_loggers": False}})
log.error("after it")
"""
    subprocess.run([sys.executable, "-c", source], check=True, timeout=120)
    assert "after it" in (tmp_path / "out").read_text()


@pytest.mark.slow
def test_a_record_that_comes_as_the_process_ends_is_only_journaled(tmp_path):
    """After the exit pass and logging's own shutdown nothing begins anew; the next run delivers it."""
    source = f"""
import atexit, logging
def late():
    log.error("late")
atexit.register(late)  # so it runs last
from lastwords import DurableHandler
log = logging.getLogger("app")
log.addHandler(DurableHandler("file:{tmp_path}/out", "{tmp_path}/j.db"))
log.error("first")
"""
    subprocess.run([sys.executable, "-c", source], check=True, timeout=120)
    with DurableClosing(tmp_path) as handler:
        assert handler.drain(60)
    assert [line.split()[-1] for line in (tmp_path / "out").read_text().splitlines()] == ["first", "late"]


class DurableClosing:
    def __init__(self, folder):
        self._folder = folder

    def __enter__(self):
        self.handler = DurableHandler(f"file:{self._folder}/out", self._folder / "j.db")
        return self.handler

    def __exit__(self, *_):
        self.handler.close()
