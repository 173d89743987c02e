"""The table ``meta``: what a journal notes of itself, a text by key. In the caller's transaction, if there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.visible import encodable

if TYPE_CHECKING:
    import sqlite3


def get(conn: sqlite3.Connection, key: str) -> str | None:
    """What is noted under ``key``, None if nothing is. A journal is input: it need not be what was put there."""
    row = conn.execute("SELECT value FROM meta WHERE key = ?", (encodable(key),)).fetchone()
    return None if row is None or row[0] is None else str(row[0])


def put(conn: sqlite3.Connection, key: str, value: str) -> None:
    """Note it, in place of what was there."""
    conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (encodable(key), encodable(value)))
