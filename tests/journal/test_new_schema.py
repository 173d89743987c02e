"""A new journal is made by a ready script, which is what the migrations make."""

import sqlite3
import subprocess
import sys

import pytest
from lastwords.migrations.migrations import migration
from sqlite_utils import Database

from lastwords.journal import new_schema, schema

NOTES = "_sqlite_migrations"  # sqlite-utils' own: how it looks is for it to say


@pytest.fixture
def migrated():
    conn = sqlite3.connect(":memory:", isolation_level=None)
    migration.apply(Database(conn, execute_plugins=False))
    yield conn
    conn.close()


@pytest.fixture
def scripted():
    conn = sqlite3.connect(":memory:", isolation_level=None)
    for statement in new_schema.STATEMENTS:
        conn.execute(statement)
    yield conn
    conn.close()


def looks(conn):
    return conn.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE tbl_name <> ? ORDER BY rowid", (NOTES,)
    ).fetchall()


def holds(conn):
    tables = [name for kind, name, *_ in looks(conn) if kind == "table"]
    return {name: conn.execute(f"SELECT * FROM {name}").fetchall() for name in tables}


def test_the_script_makes_what_the_migrations_make(migrated, scripted):
    """The same tables and views to the letter, in the same order, with the same rows; after a new step, copy it there."""
    assert looks(scripted) == looks(migrated)
    assert holds(scripted) == holds(migrated)
    assert len(migration._migrations) == schema.FORMAT


def test_the_migrations_know_what_the_script_has_done(migrated, scripted):
    """The next step is applied to such a journal, and no other."""
    database = Database(scripted, execute_plugins=False)
    assert migration.pending(database) == []
    before = looks(scripted)
    migration.apply(database)
    assert looks(scripted) == before
    columns = [[row[1:3] for row in conn.execute(f"PRAGMA table_info({NOTES})")] for conn in (scripted, migrated)]
    assert columns[0] == columns[1]


LATE = (
    *("sqlite_utils", "click", "tenacity", "asyncio", "ctypes", "lastwords.migrations"),
    *("dataclasses", "hashlib", "json", "random", "shutil", "socket", "subprocess", "tempfile", "urllib"),
)

FIRST_START = f"""
import sys, logging, sqlite3, msgspec  # without these there is no journal
before = set(sys.modules)
import lastwords
handler = lastwords.DurableHandler(lambda entries: None, sys.argv[1])
print([name for name in {LATE} if name in sys.modules and name not in before])
handler.close()
"""


def test_a_first_start_imports_what_it_needs_and_no_more(tmp_path):
    """A new journal, and no tool for schemas, nor a large module of the standard library: they took half the time."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_START, str(tmp_path / "j.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[]\n"
