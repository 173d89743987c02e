"""Since when requeued entries age: ``aging_from`` in ``meta``, "SEQ SECONDS".

Up to that seq, entries count as logged at that time (unix seconds). See ``delivery.ages`` for why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3

    from .store import Store


class AgingFrom(NamedTuple):
    """Entries up to ``seq`` age since ``since``, unix seconds."""

    seq: int
    since: float


def note(conn: sqlite3.Connection, now: float) -> None:
    """What is in the journal ages from ``now`` on. In the caller's transaction."""
    newest = conn.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()[0]
    conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('aging_from', ?)", (f"{newest} {now:.3f}",))


def age_anew(store: Store, now: float) -> None:
    """What is in the journal ages from ``now`` on."""
    with store.lock, store.transaction() as conn:
        note(conn, now)


def aging_from(store: Store) -> AgingFrom:
    """Seq 0 if all entries age since they were logged."""
    with store.lock, store.reading() as conn:
        row = conn.execute("SELECT value FROM meta WHERE key = 'aging_from'").fetchone()
    seq, _, since = str(row[0] if row else "").partition(" ")
    try:
        return AgingFrom(int(seq), float(since))
    except ValueError:
        return AgingFrom(0, 0.0)
