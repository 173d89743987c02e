"""A look at a file that another process is just making: what it says counts only if the file was left alone."""

import os
import sqlite3
import time

import pytest

from lastwords.errors import JournalForeign
from lastwords.journal import first_look
from lastwords.journal.store import Store


@pytest.fixture
def path(tmp_path):
    """Of a journal that nobody writes to."""
    path = str(tmp_path / "j.db")
    Store(path).close()
    written(path, 20)
    return path


def written(path, seconds):
    """As if somebody had last written so many seconds ago."""
    os.utime(path, (time.time() - seconds,) * 2)


def torn(times, between):
    """A look that finds half of what is written, so often; ``between``: what comes before the look is over."""
    real, left = first_look._look_once, [times]

    def look(path):
        if not left[0]:
            return real(path)
        left[0] -= 1
        between(path)
        raise sqlite3.DatabaseError("file is not a database")

    return look


@pytest.mark.parametrize("is_written", [True, False])
def test_a_look_that_took_longer_than_the_making_of_the_journal_says_nothing(path, monkeypatch, is_written):
    """The machine is busy: when it is over, the file has long been left alone. The control: it was, all the time."""
    monkeypatch.setattr(first_look, "_look_once", torn(1, lambda path: written(path, 10) if is_written else None))
    if is_written:
        first_look.look_at(path)
    else:
        with pytest.raises(sqlite3.DatabaseError):
            first_look.look_at(path)


def test_one_look_is_not_enough_whatever_time_it_took(path, monkeypatch):
    """Half a second is over before the second one: all the same it counts."""
    monkeypatch.setattr(first_look, "SECONDS", 0.0)
    monkeypatch.setattr(first_look, "_look_once", torn(3, lambda path: written(path, 0)))
    first_look.look_at(path)


def test_a_file_that_is_written_all_the_time_and_is_no_journal_is_refused(tmp_path, monkeypatch):
    """In the end."""
    other = str(tmp_path / "other.db")
    with sqlite3.connect(other) as conn:
        conn.execute("CREATE TABLE t (a)")
    real = first_look._look_once
    monkeypatch.setattr(first_look, "SECONDS", 0.0)
    monkeypatch.setattr(first_look, "_look_once", lambda path: (written(path, 0), real(path)))
    with pytest.raises(JournalForeign):
        first_look.look_at(other)
