"""SQLite's exceptions stay in the room of the journal: what is asked of it raises JournalError, whatever goes wrong."""

import logging
import sqlite3
import time

import pytest

from lastwords import DurableHandler
from lastwords.errors import JournalBusy, JournalDamaged, JournalError, JournalFull
from lastwords.journal import continuity, explain, store, tidy, wal
from lastwords.journal.line import Line
from lastwords.journal.store import Store

KINDS = {
    sqlite3.SQLITE_CORRUPT: JournalDamaged,
    sqlite3.SQLITE_BUSY: JournalBusy,
    sqlite3.SQLITE_FULL: JournalFull,
    sqlite3.SQLITE_IOERR: JournalError,
}
ASKED = {
    "cursor": Line.cursor,
    "newest_seq": Line.newest_seq,
    "read": lambda line: line.read(0, 5),
    "newest_pending": lambda line: line.newest_pending(0),
    "has_pending": Line.has_pending,
    "has_pending_up_to": lambda line: line.has_pending_up_to(1),
    "oldest_settled": Line.oldest_settled,
    "stats": Line.stats,
    "entries": lambda line: list(line.entries()),
    "raise_fence": Line.raise_fence,
    "get_meta": lambda line: line.get_meta("x"),
    "set_meta": lambda line: line.set_meta("x", "y"),
    "dead_letters": Line.dead_letters,
    "dead_keys": Line.dead_keys,
    "first_dead_reason": Line.first_dead_reason,
    "retry_dead": lambda line: line.retry_dead(["x"]),
    "drop_dead": lambda line: line.drop_dead(["x"]),
    "untold_drops": Line.untold_drops,
    "tell_drops": lambda line: line.tell_drops((0.0, 20, "{}", 0), []),
    "used_bytes": lambda line: tidy.used_bytes(line.store),
    "prune_slice": lambda line: tidy.prune_slice(line.store, 0),
    "vacuum_slice": lambda line: tidy.vacuum_slice(line.store),
    "shed": lambda line: tidy.shed(line.store, 1),
    "note_drops": lambda line: tidy.note_drops(line.store, {20: 1}),
    "checkpoint": lambda line: wal.checkpoint(line.store, shrink=True),
    "backfill": lambda line: wal.Backfill(line.store).run(),
    "note": lambda line: continuity.note(line.store),
}


class Faulty(sqlite3.Connection):
    """Its ``execute`` fails with ``code`` from the call ``at`` on."""

    code = 0
    at = 1
    calls = 0

    def execute(self, *args):
        Faulty.calls += 1
        if Faulty.code and Faulty.calls >= Faulty.at:
            error = sqlite3.DatabaseError("what SQLite says")
            error.sqlite_errorcode = Faulty.code
            raise error
        return super().execute(*args)


@pytest.fixture
def line(tmp_path, monkeypatch):
    handler = DurableHandler(None, tmp_path / "j.db")
    for _ in range(3):
        handler.handle(logging.makeLogRecord({"msg": "m", "created": time.time()}))
    handler.close()
    connect = sqlite3.connect
    with monkeypatch.context() as patched:
        patched.setattr(store.sqlite3, "connect", lambda *a, **k: connect(*a, factory=Faulty, **k))
        patched.setattr(Faulty, "code", 0)
        with Line.open(tmp_path / "j.db") as opened:
            yield opened
            Faulty.code = 0


def raised(line, ask, code, at):
    """What ``ask`` raises if SQLite fails with ``code`` from the call ``at`` on; None if it needs fewer."""
    Faulty.code, Faulty.at, Faulty.calls = code, at, 0
    try:
        ask(line)
    except (JournalError, sqlite3.Error) as error:
        return error
    finally:
        Faulty.code = 0
    return None


@pytest.mark.parametrize("asked", ASKED)
def test_whatever_is_asked_of_a_journal_raises_its_own_errors(line, asked):
    """At each call of SQLite's, of the kind that the code means, with what SQLite said as the cause."""
    for code, kind in KINDS.items():
        found = [raised(line, ASKED[asked], code, at) for at in (1, 2, 3)]
        assert found[0] is not None
        for error in filter(None, found):
            assert type(error) is kind and error.path == line.path
            assert error.__cause__.sqlite_errorcode == code


def test_an_exception_that_crosses_is_found(line, monkeypatch):
    """The check above can fail."""
    monkeypatch.setattr(explain.SqliteExplained, "__exit__", lambda *_: None)
    assert isinstance(raised(line, Line.stats, sqlite3.SQLITE_BUSY, 1), sqlite3.DatabaseError)


def test_only_what_sqlite_raises_is_explained(tmp_path):
    """What the caller raises while it has the connection is its own."""
    made = Store(str(tmp_path / "j.db"))
    with pytest.raises(KeyError), made.lock, made.reading():
        raise KeyError
    made.close()
