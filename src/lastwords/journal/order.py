"""Whether rows came in order: a damaged page may make SQLite skip some rows, or return others twice, without an error.

A sector of zeros reads as seq 0; a garbage seq ends a scan. If these were believed, the cursor would move back, or past
what can still be read. So code that reads in order compares seqs with what they ought to be (entries that were shed
leave gaps), and what is out of order is damage: the file is set aside, and its rows are read one at a time.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from ..errors import JournalDamaged

if TYPE_CHECKING:
    import sqlite3

LOOKS = 2_000  # at most, of some 5 us, in one read
RUN_UP = 200  # rows: a page has fewer
_ONE = "SELECT 1 FROM entries WHERE seq = ? AND seq NOT IN (SELECT seq FROM ahead)"
_FIRST = (
    "SELECT settled, (SELECT seq FROM entries WHERE seq > settled AND seq NOT IN (SELECT seq FROM ahead)"
    " ORDER BY seq LIMIT 1) FROM cursor"
)
_SPAN = "SELECT seq FROM entries WHERE seq BETWEEN ? AND ? ORDER BY seq"


def check(conn: sqlite3.Connection, path: str, after: int, seqs: list[int]) -> None:
    """Raise JournalDamaged unless ``seqs`` are what is to be read beyond ``after``."""
    if seqs == list(range(after + 1, after + 1 + len(seqs))):
        return
    looks = LOOKS
    for before, seq in pairwise([after, *seqs]):
        gap = range(before + 1, min(seq, before + 1 + looks))
        looks -= len(gap)
        if seq <= before or (gap and not _is_gap(conn, before, seq, gap)):
            raise JournalDamaged(path, "is damaged: entries are out of order", "see `lastwords doctor`")


def may_wait_up_to(conn: sqlite3.Connection, seq: int) -> bool:
    """Whether an entry at or below ``seq`` is pending, or may be: the first that a scan comes to is out of order."""
    settled, first = conn.execute(_FIRST).fetchone() or (0, None)
    if settled >= seq or first is None:
        return False
    return first <= seq or not _is_gap(conn, settled, first, range(settled + 1, min(first, settled + 1 + LOOKS)))


def _is_gap(conn: sqlite3.Connection, before: int, seq: int, gap: range) -> bool:
    # From further up: a scan that begins inside a damaged page does not see what a scan that comes to it does.
    first = before - RUN_UP
    there = [first - 1, *(row[0] for row in conn.execute(_SPAN, (first, seq)))]
    ascending = all(one < two <= seq for one, two in pairwise(there))
    return ascending and not any(conn.execute(_ONE, (missing,)).fetchone() for missing in gap)
