"""The line of entries: read, settle, bury, requeue, count. All SQL is in this room.

What the schema means
---------------------
``entries``       committed records, ``seq`` their place. Rows at or below the cursor are settled and wait to be pruned;
                  the newest row is never deleted, so that no seq is used twice.
``cursor``        one row: ``settled`` (the cursor), ``fence`` (raised by a takeover), ``consumed`` (how many seqs were
                  settled, buried or dropped: pending = max(seq) - consumed), what is known against the head.
``ahead``         seqs that were settled out of order, while the head of the line was probed.
``dead_letters``  copies of buried entries with their error, redrivable.
``epochs``        from ``first_seq`` on, ids are ``<uuid>-<seq>``.

The commit point of every change is one autocommit statement or one BEGIN IMMEDIATE transaction.

What a crash leaves behind
--------------------------
before the append commits     nothing, and the logging call had not returned
after it                      the entry, pending
between acceptance and mark   the entry, pending: it is delivered again, with the same id
inside a mark                 all of it or nothing
inside a prune                some settled rows fewer

Marks are fenced: ``WHERE fence = ? AND settled = ?``. A holder of the lease that was stopped, taken over and resumed
changes nothing (:class:`Fenced`). And no mark passes more entries than the holder had in its hands: another process may
fill older ones in at their places meanwhile (``transfer``).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from ..errors import JournalError
from ..runtime.visible import encodable
from . import alone, files, meta, order
from .letters import ERROR_TEXT, Letters
from .rows import (
    Burial,
    Cursor,
    DeadLetter,
    Fenced,
    FilledIn,
    Stats,
    StoredRow,
    Undecodable,
    decode_row,
    stored,
)
from .store import Store

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Iterator, Sequence

    from ..record.codec import Entry

__all__ = ["Burial", "Cursor", "DeadLetter", "Fenced", "Line", "Stats", "StoredRow", "Undecodable"]

MAX_READ_BYTES = 8 * 2**20  # of payload in one read: a batch of huge records must not fill the memory
READ_ROWS = 50  # in one hold of the lock: some 50 us

# The payload as bytes: it is checked and parsed as such, and SQLite's text would first have to be decoded.
_ROW = "seq, created, level, CAST(payload AS BLOB), checksum, id"

_THERE = "(SELECT count(*) FROM entries WHERE seq > ? AND seq <= ? AND seq NOT IN (SELECT seq FROM ahead))"


def _count_gone(conn: sqlite3.Connection, seqs: list[int]) -> int:
    there = "SELECT 1 FROM entries WHERE seq = ?"
    return sum(conn.execute(there, (seq,)).fetchone() is None for seq in seqs)


class Line(Letters):
    """One journal's, through its store. Thread-safe and fork-safe. ``close()`` it, or use it as a context manager."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.path = store.path

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Of a journal that is there. Raises JournalError if it is not, or is foreign, damaged or too new."""
        return cls(Store(files.absolute(path), create=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; idempotent."""
        self.store.close()

    # --- reading ------------------------------------------------------------------------------------

    def _rows(self, conn: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> list[StoredRow]:
        """In the hold of the lock in which they were read: another process may begin an epoch at any time."""
        return stored(self.store.read_epochs(conn), rows)

    def cursor(self) -> Cursor:
        """The cursor row."""
        with self.store.lock, self.store.reading() as conn:
            row = conn.execute("SELECT settled, fence, attempts, probe, failed_at FROM cursor").fetchone()
        if row is None:
            raise JournalError(self.path, "has no cursor row", "see `lastwords doctor`")
        return Cursor(*row)

    def newest_seq(self) -> int:
        """The seq of the newest row, 0 if there is none."""
        with self.store.lock, self.store.reading() as conn:
            newest: int = conn.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()[0]
        return newest

    def read(self, after: int, most: int, *, beyond: int = 0) -> list[StoredRow]:
        """Pending rows with ``seq > after`` in order, without those settled ahead; ``beyond`` skips that many."""
        rows: list[StoredRow] = []
        size = 0
        while len(rows) < most:
            slice_ = min(READ_ROWS, most - len(rows))
            fetched = self._fetch(after, slice_, beyond)
            self.store.turns.let_callers()
            for row in fetched:
                size += len(row.payload or b"")  # else it is damaged
                if size > MAX_READ_BYTES and rows:
                    return rows
                rows.append(row)
            if len(fetched) < slice_:
                break
            after, beyond = rows[-1].seq, 0
        return rows

    def _fetch(self, after: int, most: int, beyond: int) -> list[StoredRow]:
        with self.store.lock, alone.reading(self.store) as conn:
            found = conn.execute(
                f"SELECT {_ROW} FROM entries WHERE seq > ? AND seq NOT IN (SELECT seq FROM ahead)"  # noqa: S608
                " ORDER BY seq LIMIT ? OFFSET ?",
                (after, most, beyond),
            ).fetchall()
            seqs = [row[0] for row in found]  # with an offset the first may be anywhere
            order.check(conn, self.path, seqs[0] - 1 if beyond and seqs else after, seqs)
            epochs = self.store.read_epochs(conn)  # of this hold, see _rows; what follows keeps no caller waiting
        return stored(epochs, found)

    def newest_pending(self, after: int) -> StoredRow | None:
        """The last pending row, or None."""
        with self.store.lock, self.store.reading() as conn:
            rows = conn.execute(
                f"SELECT {_ROW} FROM entries WHERE seq > ? AND seq NOT IN (SELECT seq FROM ahead)"  # noqa: S608
                " ORDER BY seq DESC LIMIT 1",
                (after,),
            ).fetchall()
            return self._rows(conn, rows)[0] if rows else None

    def has_pending(self) -> bool:
        """True if anything waits for delivery."""
        with self.store.lock, self.store.reading() as conn:
            row = conn.execute(
                "SELECT 1 FROM entries WHERE seq > (SELECT settled FROM cursor)"
                " AND seq NOT IN (SELECT seq FROM ahead) LIMIT 1"
            ).fetchone()
        return row is not None

    def oldest_settled(self) -> float | None:
        """When the oldest entry that a prune may delete was logged (unix seconds), or None."""
        with self.store.lock, self.store.reading() as conn:
            row = conn.execute(
                "SELECT created FROM entries WHERE seq = (SELECT min(seq) FROM entries)"
                " AND seq <= (SELECT settled FROM cursor) AND seq < (SELECT max(seq) FROM entries)"
            ).fetchone()
        if row is None:
            return None
        return row[0] if isinstance(row[0], float) else 0.0

    def has_pending_up_to(self, seq: int) -> bool:
        """True if anything at or below ``seq`` waits for delivery, or may: a damaged row ends a scan, without error."""
        with self.store.lock, self.store.reading() as conn:
            return order.may_wait_up_to(conn, seq)

    decode = staticmethod(decode_row)

    def stats(self, *, buffered: int = 0, overflowed: int = 0) -> Stats:
        """The journal in numbers; a few microseconds, whatever its size."""
        with self.store.lock, self.store.reading() as conn:
            row = conn.execute(
                "SELECT (SELECT coalesce(max(seq), 0) FROM entries) - consumed, delivered,"
                " dead, dropped, retries, (SELECT created FROM entries"
                " WHERE seq > settled ORDER BY seq LIMIT 1), last_error, last_error_at, last_delivery_at FROM cursor"
            ).fetchone()
        if row is None:
            raise JournalError(self.path, "has no cursor row", "see `lastwords doctor`")
        pending, delivered, dead, dropped, retries, oldest, error, error_at, delivery_at = row
        return Stats(
            pending=max(0, pending),
            delivered=delivered,
            dead=dead,
            dropped=dropped + overflowed,
            buffered=buffered,
            retries=retries,
            oldest_age=max(0.0, time.time() - oldest) if pending > 0 and isinstance(oldest, float) else None,
            last_error=error,
            last_error_at=error_at,
            last_delivery=delivery_at,
        )

    def entries(
        self,
        *,
        pending: bool = True,
        settled: bool = False,
        first: int | None = None,
        last: int | None = None,
        since: float | None = None,
        until: float | None = None,
        min_level: int | None = None,
        limit: int | None = None,
    ) -> Iterator[Entry | Undecodable]:
        """Entries in order, filtered; reads in slices, so memory stays small and no lock is held in between.

        ``first`` and ``last`` are seqs, ``since`` and ``until`` unix seconds, ``min_level`` a level number.
        """
        at = (first or 1) - 1
        found = 0
        while limit is None or found < limit:
            rows, at = self._slice(at, last, since, until, min_level, pending=pending, settled=settled)
            for row in rows:
                yield decode_row(row)
                found += 1
                if found == limit:
                    return
            if at < 0:
                return

    def _slice(
        self,
        at: int,
        last: int | None,
        since: float | None,
        until: float | None,
        min_level: int | None,
        *,
        pending: bool,
        settled: bool,
        span: int = 1000,
    ) -> tuple[list[StoredRow], int]:
        """The wanted rows among the next ``span``, and where to go on (-1: the end)."""
        with self.store.lock, self.store.reading() as conn:
            cursor = conn.execute("SELECT settled FROM cursor").fetchone()[0]
            fetched = conn.execute(
                f"SELECT {_ROW}, seq IN (SELECT seq FROM ahead) FROM entries WHERE seq > ?"  # noqa: S608
                " ORDER BY seq LIMIT ?",
                (at, span),
            ).fetchall()
            wanted = [
                row[:6]
                for row in fetched
                if (settled if row[0] <= cursor or row[6] else pending)
                and (last is None or row[0] <= last)
                # A damaged column passes: whoever looks should see that row.
                and (since is None or not isinstance(row[1], float) or row[1] >= since)
                and (until is None or not isinstance(row[1], float) or row[1] < until)
                and (min_level is None or not isinstance(row[2], int) or row[2] >= min_level)
            ]
            end = len(fetched) < span or (last is not None and fetched[-1][0] >= last)
            # A damaged page may show an earlier seq: going on from there would never end.
            end = end or fetched[-1][0] <= at
            return self._rows(conn, wanted), -1 if end else fetched[-1][0]

    # --- marks (the holder of the lease) ---------------------------------------------------------------

    def settle(self, cursor: Cursor, upto: int, delivered: int) -> Cursor:
        """The hot mark: everything up to ``upto`` was accepted. Raises :class:`Fenced`, :class:`FilledIn`."""
        at = cursor.settled
        with self.store.lock, alone.committing(self.store) as commit:
            done = commit(
                # What was shed in our hands, or settled ahead, has been counted: so what is there is counted here.
                f"UPDATE cursor SET settled = ?, consumed = consumed + {_THERE}, delivered = delivered + ?,"  # noqa: S608
                " attempts = 0, probe = 0, failed_at = NULL, last_delivery_at = ?"
                f" WHERE fence = ? AND settled = ? AND {_THERE} <= ?",
                (max(upto, at), at, upto, delivered, time.time(), cursor.fence, at, at, upto, delivered),
            ).rowcount
            if done != 1:
                now = self.store.connection().execute("SELECT fence, settled FROM cursor").fetchone()
                ours = now == (cursor.fence, at)
                raise FilledIn if ours else Fenced
        return Cursor(upto, cursor.fence, 0, 0, None)

    def mark(
        self,
        cursor: Cursor,
        *,
        upto: int,
        delivered: int,
        buried: Sequence[Burial] = (),
        ahead: Sequence[int] = (),
        attempts: int = 0,
        probe: int = 0,
    ) -> Cursor:
        """The cold mark, in one transaction: move the cursor, bury, settle ahead. Raises as :meth:`settle` does.

        ``ahead`` are seqs beyond the cursor that were accepted; ``buried`` may lie on either side of it.
        """
        now = time.time()
        with self.store.lock, self.store.transaction() as conn:
            passed_by = [b.seq for b in buried if b.seq > upto]
            beyond = [*ahead, *passed_by]
            # What was shed in our hands has been counted.
            there = conn.execute(f"SELECT {_THERE}", (cursor.settled, upto)).fetchone()[0]
            counted = there + len(beyond) - _count_gone(conn, beyond)
            done = conn.execute(
                "UPDATE cursor SET settled = ?, consumed = consumed + ?, delivered = delivered + ?, dead = dead + ?,"
                " attempts = ?, probe = ?, failed_at = CASE WHEN ? THEN failed_at END,"
                " last_delivery_at = CASE WHEN ? THEN ? ELSE last_delivery_at END WHERE fence = ? AND settled = ?",
                (
                    upto,
                    counted,
                    delivered,
                    len(buried),
                    attempts,
                    probe,
                    upto == cursor.settled and attempts,
                    delivered,
                    now,
                    cursor.fence,
                    cursor.settled,
                ),
            ).rowcount
            if done != 1:
                raise Fenced
            if there > delivered + len(buried) - len(beyond):
                raise FilledIn
            for burial in buried:
                self._bury(conn, burial, now)
            conn.executemany("INSERT INTO ahead (seq) VALUES (?)", [(seq,) for seq in beyond])
            conn.execute("DELETE FROM ahead WHERE seq <= ?", (upto,))
        failed_at = cursor.failed_at if upto == cursor.settled and attempts else None
        return Cursor(upto, cursor.fence, attempts, probe, failed_at)

    def fail(self, cursor: Cursor, error: str, *, counts: bool, probe: int | None = None) -> Cursor:
        """A failed attempt; ``counts`` if it speaks against the entry at the head. Raises :class:`Fenced`."""
        attempts = cursor.attempts + 1 if counts else cursor.attempts
        failed_at = (cursor.failed_at or time.time()) if attempts else None
        probe = cursor.probe if probe is None else probe
        with self.store.lock, self.store.writing() as conn:
            self.store.set_synchronous(conn, full=False)
            done = conn.execute(
                "UPDATE cursor SET retries = retries + 1, last_error = ?, last_error_at = ?, attempts = ?, probe = ?,"
                " failed_at = ? WHERE fence = ? AND settled = ?",
                (encodable(error[:ERROR_TEXT]), time.time(), attempts, probe, failed_at, cursor.fence, cursor.settled),
            ).rowcount
        if done != 1:
            raise Fenced
        return cursor._replace(attempts=attempts, probe=probe, failed_at=failed_at)

    def raise_fence(self) -> None:
        """Shut the former holder of the lease out (a takeover; the new lock file is held)."""
        with self.store.lock, self.store.writing() as conn:
            self.store.set_synchronous(conn, full=False)
            conn.execute("UPDATE cursor SET fence = fence + 1")

    # --- meta -------------------------------------------------------------------------------------------

    def get_meta(self, key: str) -> str | None:
        """A value of the ``meta`` table."""
        with self.store.lock, self.store.reading() as conn:
            return meta.get(conn, key)

    def set_meta(self, key: str, value: str) -> None:
        """Set a value of the ``meta`` table."""
        with self.store.lock, self.store.writing() as conn:
            self.store.set_synchronous(conn, full=False)
            meta.put(conn, key, value)
