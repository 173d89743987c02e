"""Journals of an older format: looked at as they are, brought up by who writes, and views for people without lastwords."""

import logging
import sqlite3
import sys

import pytest
from lastwords.migrations.migrations import migration
from sqlite_utils import Database

from lastwords import Journal
from lastwords.journal import readonly
from lastwords.journal.schema import FORMAT
from lastwords.journal.store import Store
from lastwords.record.codec import encode


def make_old(path, *rows):
    """A journal as lastwords of format 1 made it, with ``rows``."""
    conn = sqlite3.connect(path, isolation_level=None)
    migration.apply(Database(conn, execute_plugins=False), stop_before="m002_views_of_exceptions")
    conn.execute("PRAGMA application_id=0x4C617374")
    conn.execute("PRAGMA user_version=1")
    conn.execute("INSERT INTO epochs VALUES (1, 'old', 'boot', 1, 1, 0.0)")
    for row in rows:
        conn.execute("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", row)
    conn.close()
    path.chmod(0o600)


def record(text="hello", exc_info=None):
    return encode(logging.LogRecord("app", logging.ERROR, "app.py", 1, text, None, exc_info, "f"))


def raised(error):
    try:
        raise error
    except BaseException:
        return sys.exc_info()


def test_an_older_journal_is_looked_at_without_a_change(tmp_path):
    """status and list do not migrate."""
    path = tmp_path / "j.db"
    make_old(path, record())
    before = path.read_bytes()
    with readonly.look(str(path)) as journal:
        assert journal.stats().pending == 1
        assert [entry.message for entry in journal.entries(pending=True, settled=False)] == ["hello"]
    assert path.read_bytes() == before


def test_who_writes_brings_an_older_journal_up(tmp_path):
    """Entries, ids and the cursor stay as they are; the views are there; an older lastwords may still read it."""
    path = tmp_path / "j.db"
    make_old(path, record("one"), record("two"))
    Store(str(path)).close()
    Store(str(path)).close()  # and nothing is done twice
    conn = sqlite3.connect(path)
    assert conn.execute("PRAGMA user_version").fetchone() == (FORMAT,)
    assert conn.execute("SELECT id, message, state FROM records").fetchall() == [
        ("old-1", "one", "pending"),
        ("old-2", "two", "pending"),
    ]
    assert conn.execute("SELECT value FROM meta WHERE key = 'min_reader'").fetchone() == ("1",)
    conn.close()
    assert Journal(path).stats().pending == 2


def test_a_migration_that_fails_leaves_the_older_journal_whole(tmp_path, monkeypatch):
    """All in one transaction; the next opening tries again."""
    path = tmp_path / "j.db"
    make_old(path, record())

    def fails(db):
        db.execute("CREATE TABLE half (x)")
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(migration._migrations[-1], "fn", fails)
    with pytest.raises(Exception, match="full"):
        Store(str(path))
    monkeypatch.undo()
    conn = sqlite3.connect(path)
    assert conn.execute("PRAGMA user_version").fetchone() == (1,)
    assert conn.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('half', 'dead')").fetchone() == (0,)
    conn.close()
    Store(str(path)).close()
    assert Journal(path).stats().pending == 1


def test_views_show_exceptions_and_survive_damage(tmp_path):
    """records and dead have type, text and traceback of an exception; a payload that is no JSON is a row of NULLs."""
    path = tmp_path / "j.db"
    Store(str(path)).close()
    conn = sqlite3.connect(path, isolation_level=None)
    insert = "INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)"
    conn.execute(insert, record("division", raised(ZeroDivisionError("by 0"))))
    conn.execute(insert, record("sql", raised(sqlite3.OperationalError("no such table"))))
    conn.execute(insert, (1.0, 20, "{no json", 0))
    conn.execute(
        "INSERT INTO dead_letters SELECT 'id-' || seq, seq, created, level, payload, checksum, 'refused', NULL, 1, NULL,"
        " 86400.0 FROM entries"
    )
    shown = [
        ("division", "ZeroDivisionError", "by 0"),
        ("sql", "sqlite3.OperationalError", "no such table"),
        (None, None, None),
    ]
    for view in ("records", "dead"):
        rows = f"SELECT message, exception_type, exception_text FROM {view} ORDER BY seq"
        assert conn.execute(rows).fetchall() == shown
        (text,) = conn.execute(f"SELECT exception_traceback FROM {view} WHERE seq = 1").fetchone()
        assert text.endswith("ZeroDivisionError: by 0")
    dead = conn.execute("SELECT level, error, attempts, buried_utc FROM dead WHERE seq = 3").fetchone()
    assert dead == ("INFO", "refused", 1, "1970-01-02 00:00:00.000")
    conn.close()
