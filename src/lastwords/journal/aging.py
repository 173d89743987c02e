"""Since when requeued entries age: ``aging_from`` in ``meta``, "SEQ SECONDS".

Up to that seq, entries count as logged at that time (unix seconds). See ``delivery.max_age`` for why.
"""

from typing import TYPE_CHECKING, NamedTuple

from . import meta

if TYPE_CHECKING:
    import sqlite3

    from .store import Store

_KEY = "aging_from"


class AgingFrom(NamedTuple):
    """Entries up to ``seq`` age since ``since``, unix seconds."""

    seq: int
    since: float


def note(conn: "sqlite3.Connection", now: float) -> None:
    """What is in the journal ages from ``now`` on. In the caller's transaction."""
    newest = conn.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()[0]
    meta.put(conn, _KEY, f"{newest} {now:.3f}")


def age_anew(store: "Store", now: float) -> None:
    """What is in the journal ages from ``now`` on."""
    with store.lock, store.transaction() as conn:
        note(conn, now)


def aging_from(store: "Store") -> AgingFrom:
    """Seq 0 if all entries age since they were logged."""
    with store.lock, store.reading() as conn:
        noted = meta.get(conn, _KEY)
    seq, _, since = (noted or "").partition(" ")
    try:
        return AgingFrom(int(seq), float(since))
    except ValueError:
        return AgingFrom(0, 0.0)
