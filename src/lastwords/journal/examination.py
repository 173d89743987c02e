"""What is asked of a whole journal, and changes nothing: for ``doctor`` and ``status``, which know no SQL.

Ask inside :func:`one_moment`, so that a service that goes on logging does not make the answers disagree. What SQLite
raises meanwhile becomes ours there, see ``explain``; a damaged file may hold anything, so any question may raise it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from . import continuity, files
from .explain import explained
from .rows import StoredRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .continuity import Missing
    from .line import Line

_PENDING = "seq > (SELECT settled FROM cursor) AND seq NOT IN (SELECT seq FROM ahead)"
_COUNTS = {
    "pending": (
        "SELECT coalesce((SELECT max(seq) FROM entries), 0) - consumed FROM cursor",
        f"SELECT count(*) FROM entries WHERE {_PENDING}",  # noqa: S608 - a constant
    ),
    "dead letters": ("SELECT dead FROM cursor", "SELECT count(*) FROM dead_letters"),
    "dropped": ("SELECT dropped FROM cursor", "SELECT coalesce(sum(count), 0) FROM drops"),
}


class Epochs(NamedTuple):
    """Their uuids in order, and where the last one began: in this boot and file, in another boot, in another file."""

    uuids: list[str]
    is_here: bool
    is_copy: bool


@contextmanager
def one_moment(journal: Line) -> Iterator[None]:
    """What is asked inside is of one moment, however long it takes. Raises JournalError and its children."""
    with explained(journal.path), journal.store.lock, journal.store.reading() as conn:
        conn.execute("BEGIN")
        try:
            yield
        finally:
            conn.execute("ROLLBACK")


def epochs(journal: Line) -> Epochs:
    """What the journal says of its epochs."""
    with journal.store.lock, journal.store.reading() as conn:
        rows = conn.execute("SELECT uuid, boot, device, inode FROM epochs ORDER BY first_seq").fetchall()
    here = files.identify(journal.path)
    began = rows[-1][1:]
    is_here = here is None or began == tuple(here)
    return Epochs([row[0] for row in rows], is_here, is_copy=not is_here and began[1:] != tuple(here or ())[1:])


def missing(journal: Line) -> Missing | None:
    """What the file should have beyond its end, as far as is known."""
    with journal.store.lock, journal.store.reading() as conn:
        return continuity.missing_at(journal.path, conn)


def cursor_rows(journal: Line) -> int:
    """How many rows the cursor has: one, or it is damaged."""
    with journal.store.lock, journal.store.reading() as conn:
        rows: int = conn.execute("SELECT count(*) FROM cursor").fetchone()[0]
    return rows


def page_problems(journal: Line) -> list[str]:
    """What SQLite finds wrong with the pages; reads all of them."""
    with journal.store.lock, journal.store.reading() as conn:
        found = [str(row[0]) for row in conn.execute("PRAGMA integrity_check(20)")]
    return [] if found == ["ok"] else found


def dead_rows(journal: Line) -> Iterator[StoredRow]:
    """The dead letters as rows to be decoded, one at a time."""
    with journal.store.lock, journal.store.reading() as conn:
        query = "SELECT seq, created, level, payload, checksum, id FROM dead_letters ORDER BY seq"
        for row in conn.execute(query):
            yield StoredRow(*row)


def wrong_counts(journal: Line) -> list[tuple[str, int, int]]:
    """Counts that are kept, so that ``status`` need not count, against a recount: what, kept, counted."""
    found = []
    with journal.store.lock, journal.store.reading() as conn:
        for name, queries in _COUNTS.items():
            kept, counted = (conn.execute(query).fetchone()[0] for query in queries)
            if kept != counted:
                found.append((name, kept, counted))
    return found
