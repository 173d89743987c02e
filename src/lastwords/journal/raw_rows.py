"""The rows of a journal whose tables SQLite cannot find: out of the pages themselves, whatever points to them.

Theory of operation
-------------------
All that is needed is in the leaves of the tables (https://sqlite.org/fileformat2.html#b_tree_pages). A cell of a leaf
is a rowid and a record; which table it is of, the number of its columns and their types tell. An entry and a dead
letter are taken if their checksum is right, so that nothing is delivered that was not logged. Of the cursor the
furthest is taken: it never goes back.

A seq is one number of a cell, and nothing tells whether it is right, unless there cannot be so many: then the entry
comes last, under the id that it would have had.

What was found goes into a temporary database with the same tables, from which the salvage reads as from any other.
"""

from __future__ import annotations

import re
import sqlite3
import struct
from typing import TYPE_CHECKING, Any

from ..record.codec import checksum
from ..runtime.clock import monotonic
from . import epochs
from .pages import Pages
from .rows import BURIED, DEAD_COLUMNS, INSERT_DEAD, entry_id, highest
from .sqlite_codes import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

_LEAF = 13  # the kind of a page: the leaf of a table
_UUID = re.compile(rb"[0-9a-f]{32}")
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes, by serial type
_TABLES = f"""
    CREATE TABLE entries (seq INTEGER PRIMARY KEY, created, level, payload, checksum, id);
    CREATE TABLE epochs (first_seq INTEGER PRIMARY KEY, uuid);
    CREATE TABLE cursor (settled, consumed);
    CREATE TABLE ahead (seq INTEGER PRIMARY KEY);
    CREATE TABLE dead_letters ({DEAD_COLUMNS}, UNIQUE (id));
    CREATE TABLE meta (key, value);
"""


class RawRows:
    """Those of the journal at ``path``. The store's lock is held around every call: SQLite is used.

    ``wants``: whether entries from one seq to another are looked for, if nothing else is.
    """

    def __init__(self, path: str, wants: Callable[[int, int], bool] | None = None) -> None:
        self._wants = wants
        self._pages = Pages(path)
        self.conn = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self.conn.text_factory = text_of
        self.conn.executescript(_TABLES)
        self._settled = self._consumed = 0
        self._work = self._all()

    def find(self, seconds: float) -> bool:
        """Go on for so long; True while there is more."""
        until = monotonic() + seconds
        self.conn.execute("BEGIN")
        try:
            for _ in self._work:
                if monotonic() > until:
                    return True
        finally:
            self.conn.execute("COMMIT")
        return False

    def close(self) -> None:
        """Give up; the database stays for its readers."""
        self._work.close()
        self._pages.close()

    def _all(self) -> Generator[None, None, None]:
        yield from self._pages.read_wal()
        for number in self._pages.numbers():
            for rowid, record in cells(self._pages, number, self._wants):
                self._take(rowid, record)
            yield
        if self._settled or self._consumed:  # else it was not found: all that is there is pending
            self.conn.execute("INSERT INTO cursor VALUES (?, ?)", (self._settled, self._consumed))
        self._place_at_the_end()
        self._pages.close()

    def _place_at_the_end(self) -> None:
        """Those whose seq cannot be right: else every seq up to it would be looked at."""
        first = self.conn.execute("SELECT min(seq) FROM entries WHERE seq > 0").fetchone()[0] or 0
        most = highest(max(self._settled, self._consumed, first - 1), self._pages.count * self._pages.size)
        at = self.conn.execute("SELECT max(seq) FROM entries WHERE seq BETWEEN 1 AND ?", (most,)).fetchone()[0] or 0
        known = epochs.read(self.conn, [])
        query = "SELECT seq, id FROM entries WHERE seq NOT BETWEEN 1 AND ? ORDER BY seq"
        for number, (seq, own) in enumerate(self.conn.execute(query, (most,)).fetchall(), max(at, self._settled) + 1):
            id_ = entry_id(known, seq, own) if known else own
            self.conn.execute("UPDATE entries SET seq = ?, id = ? WHERE seq = ?", (number, id_, seq))

    def _take(self, rowid: int, record: list[Any]) -> None:
        kinds = [type(value) for value in record]
        if kinds == [type(None)]:
            self.conn.execute("INSERT OR IGNORE INTO ahead VALUES (?)", (rowid,))
        elif len(record) == 6 and kinds[1:3] == [bytes, bytes] and _UUID.fullmatch(record[1]):
            self.conn.execute("INSERT OR REPLACE INTO epochs VALUES (?, ?)", (rowid, record[1].decode()))
        elif len(record) == 6 and _is_right(*record[1:5]):
            id_ = record[5].decode("ascii", "replace") if isinstance(record[5], bytes) else None
            if id_ is None or not id_.startswith(BURIED):
                row = (rowid, *record[1:5], id_)
                self.conn.execute("INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)
        elif len(record) == 14 and record[0] is None and rowid == 1 and kinds[1:8] == [int] * 7:
            self._settled, self._consumed = max(self._settled, record[1]), max(self._consumed, record[3])
        elif len(record) == 11 and kinds[0] is bytes and _is_right(*record[2:6]):
            self.conn.execute(INSERT_DEAD, [v.decode("utf-8", "replace") if type(v) is bytes else v for v in record])


def _is_right(created: object, level: object, payload: object, expected: object) -> bool:
    if not (isinstance(created, int | float) and isinstance(level, int) and isinstance(payload, bytes)):
        return False
    try:
        return checksum(created, level, payload) == expected
    except struct.error:
        return False


# --- the format ---------------------------------------------------------------------------------------------


def cells(
    pages: Pages, number: int, wants: Callable[[int, int], bool] | None = None
) -> Iterator[tuple[int, list[Any]]]:
    """Rowid and record of each cell that can be read, if the page is the leaf of a table; ``wants``: which."""
    page = pages.read(number)
    start = 100 if number == 1 else 0
    if len(page) < pages.size or page[start] != _LEAF:
        return
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    if wants is not None and not _may_have(page, count, wants):
        return
    for at in range(start + 8, min(start + 8 + 2 * count, pages.size - 1), 2):
        try:
            place = int.from_bytes(page[at : at + 2], "big")
            length, place = _varint(page, place)
            rowid, place = _varint(page, place)
            if wants is not None and not wants(rowid, rowid):
                continue
            record = _record(_payload(pages, page, place, length))
        except (IndexError, ValueError, struct.error):
            continue  # no cell, or a damaged one
        yield rowid - 2**64 if rowid >= 2**63 else rowid, record


def _may_have(page: bytes, count: int, wants: Callable[[int, int], bool]) -> bool:
    """Whether something is looked for between the first and the last rowid; also if these cannot be read."""
    try:
        low, high = (
            _varint(page, _varint(page, int.from_bytes(page[at : at + 2], "big"))[1])[0] for at in (8, 6 + 2 * count)
        )
    except IndexError:
        return True
    return low > high or wants(low, high)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, and where the next one is."""
    value = 0
    for i in range(8):
        byte = raw[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | raw[at + 8], at + 9


def _payload(pages: Pages, page: bytes, at: int, length: int) -> bytes:
    """Of a cell, with what is on overflow pages. Raises ValueError."""
    usable = pages.size
    if length > pages.count * usable:
        raise ValueError
    local = length
    if length > usable - 35:
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        local = local if local <= usable - 35 else least
    found = [page[at : at + local]]
    if len(found[0]) < local:
        raise ValueError
    following, left = int.from_bytes(page[at + local : at + local + 4], "big"), length - local
    seen = set()
    while left > 0:
        more = pages.read(following) if following and following not in seen else b""
        if len(more) < usable:
            raise ValueError
        seen.add(following)
        found.append(more[4 : 4 + left])
        following, left = int.from_bytes(more[:4], "big"), left - (usable - 4)
    return b"".join(found)


def _record(raw: bytes) -> list[Any]:
    """The columns, text as bytes. Raises IndexError and ValueError."""
    end, at = _varint(raw, 0)
    place, values = end, []
    while at < end:
        kind, at = _varint(raw, at)
        length = 8 if kind == 7 else _INTEGERS.get(kind, 0) if kind < 12 else (kind - 12) // 2
        part = raw[place : place + length]
        if len(part) < length or kind in {10, 11}:
            raise ValueError
        place += length
        values.append(_value(kind, part))
    return values


def _value(kind: int, part: bytes) -> object:
    if kind in _INTEGERS:
        return int.from_bytes(part, "big", signed=True)
    if kind == 7:
        return struct.unpack(">d", part)[0]
    return part if kind >= 12 else {0: None, 8: 0, 9: 1}.get(kind)
