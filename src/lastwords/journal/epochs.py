"""Epochs: spans of seqs under one uuid, so that no id is given twice, whatever is restored, copied or lost."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from .files import Identity

KEPT = 200  # of which no entry is there any more
_NEWEST = "SELECT first_seq, uuid", "FROM epochs ORDER BY first_seq DESC LIMIT 1"


def go_on(conn: sqlite3.Connection, identity: Identity, known: list[tuple[int, str]]) -> bool:
    """Whether it is certain that the file continues what was ``known`` of it, so that ids go on.

    Another boot may have rolled rows back, another file may be a copy, a backup may lie over this one, a -wal may have
    been removed: whoever opens a file for the first time cannot know, and an epoch costs a row.
    """
    newest = conn.execute(f"{_NEWEST[0]}, boot, device, inode {_NEWEST[1]}").fetchone()
    return newest is not None and newest[2:] == tuple(identity) and newest[:2] in known


def begin(conn: sqlite3.Connection, identity: Identity) -> None:
    """A new one (inside a transaction)."""
    # OR REPLACE: an epoch in which nothing was logged named no entry.
    conn.execute(
        "INSERT OR REPLACE INTO epochs (first_seq, uuid, boot, device, inode, begun_at)"
        " VALUES ((SELECT coalesce(max(seq), 0) + 1 FROM entries), ?, ?, ?, ?, ?)",
        (uuid.uuid4().hex, *identity, time.time()),
    )
    # The journal's own name, whatever epochs it has; see continuity.
    conn.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('journal', ?)", (uuid.uuid4().hex,))
    if conn.execute("SELECT count(*) FROM epochs").fetchone()[0] > KEPT:
        conn.execute(
            "DELETE FROM epochs WHERE first_seq < (SELECT max(first_seq) FROM epochs"
            " WHERE first_seq <= (SELECT min(seq) FROM entries))"
        )


def read(conn: sqlite3.Connection, known: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """All of them: those ``known``, unless another process has begun one since."""
    newest = conn.execute(" ".join(_NEWEST)).fetchone()
    if known and newest == known[-1]:
        return known
    return conn.execute("SELECT first_seq, uuid FROM epochs ORDER BY first_seq").fetchall()
