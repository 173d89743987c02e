"""What can be read of a file that is not the journal any more, however damaged it is.

A range of seqs that cannot be read is halved, and a single row that cannot be is left out. Nothing here raises what
SQLite raises.
"""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, Any

from .rows import entry_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SPAN = 512  # rows in one read
LEAST = 1  # that are left out together
UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)  # what a damaged file raises
_ROW = "seq, created, level, payload, checksum, id"
_NOTE = re.compile(r"([0-9]{1,18}) ([0-9]{1,18})")


def read_all(conn: sqlite3.Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    """The rows of a query, none if the file is too damaged."""
    try:
        return conn.execute(query, values).fetchall()
    except UNREADABLE:
        return []


def is_readable(conn: sqlite3.Connection, query: str) -> bool:
    """Whether a query gives a row."""
    return bool(read_all(conn, query))


def read_number(conn: sqlite3.Connection, query: str) -> int:
    """The number that a query gives, 0 if the file is too damaged."""
    rows = read_all(conn, query)
    value = rows[0][0] if rows else None
    return value if isinstance(value, int) else 0


def ranges(
    conn: sqlite3.Connection,
    first: int,
    last: int,
    on_error: Callable[[tuple[int, int]], None] | None = None,
    *,
    strict: bool,
) -> Iterator[tuple[Any, ...]]:
    """Rows from ``first`` to ``last``; a range that does not read is halved, a single row that does not is left out.

    ``strict``: a range that has not all its rows is halved, too: a garbage seq ends a scan, or begins another one,
    without an error, and rows on either side of it can be read one at a time.
    """
    todo = [(start, min(start + SPAN - 1, last)) for start in range(first, last + 1, SPAN)]
    todo.reverse()
    while todo:
        low, high = todo.pop()
        found = _scan(conn, low, high)
        if found is None or (strict and [row[0] for row in found] != list(range(low, high + 1))):
            if high - low >= LEAST:
                middle = (low + high) // 2
                todo += [(middle + 1, high), (low, middle)]
            elif on_error is not None:
                on_error((low, high))
            continue
        yield from (row for row in found if None not in row[:5])  # no row has that, but one that is damaged


def _scan(conn: sqlite3.Connection, low: int, high: int) -> list[tuple[Any, ...]] | None:
    where = "seq = ?" if low == high else "seq BETWEEN ? AND ? ORDER BY seq"
    try:
        return conn.execute(
            f"SELECT {_ROW} FROM entries WHERE {where}",  # noqa: S608
            (low,) if low == high else (low, high),
        ).fetchall()
    except UNREADABLE:
        return None


def last_readable(conn: sqlite3.Connection, at: int) -> int:
    """The last entry beyond ``at`` that a scan comes to, if the end of the table cannot be read."""
    step = 1_000
    while step:
        found = read_all(conn, "SELECT seq FROM entries WHERE seq > ? ORDER BY seq LIMIT ?", at, step)
        if found and found[-1][0] > at:
            at = found[-1][0]
        else:
            step //= 2
    return at


def columns_of(created: object, level: object, payload: object, checksum: object) -> tuple[object, ...]:
    """As they are copied: of whatever a damaged row holds."""
    return plain(created), plain(level), as_bytes(payload), plain(checksum)


def as_bytes(value: object) -> bytes:
    """As bytes: a damaged payload need not be UTF-8, and its checksum tells later."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def numbers_of(note: object) -> tuple[int, int]:
    """The two that a note of how far a file was moved says."""
    found = _NOTE.fullmatch(str(note))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def whole(value: object) -> int:
    """The number that a note says, 0 if it says none."""
    return int(str(value)) if re.fullmatch("[0-9]{1,18}", str(value)) else 0


def id_of(epochs: list[tuple[int, str]], seq: int, own: object) -> str | None:
    """The id of a row, None if neither it nor an epoch says it."""
    return entry_id(epochs, seq, own) if epochs or (isinstance(own, str) and own.isascii()) else None


def gaps_between(seqs: list[int], at: int, upto: int) -> list[tuple[int, int]]:
    """The spans from behind ``at`` to ``upto`` without these."""
    ends = zip([at, *seqs], [*seqs, upto + 1], strict=True)
    return [(low + 1, high - 1) for low, high in ends if high - low > 1]


def count(spans: Iterable[tuple[int, int]]) -> int:
    """How many seqs are in them."""
    return sum(high - low + 1 for low, high in spans)


def plain(value: object) -> object:
    """Text without what is no UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value
