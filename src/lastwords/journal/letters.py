"""What left the line undelivered: dead letters, written and requeued here, and drops, of which the target is told.

The base of :class:`lastwords.journal.line.Line`; each change is one transaction, or one for each ``REDRIVE_ROWS``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..runtime.visible import encodable
from . import aging
from .inserts import INSERT_ONE
from .rows import BURIED, DeadLetter, Drop, entry_id

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from .rows import Burial
    from .store import Store

REDRIVE_ROWS = 500  # dead letters in one transaction
ERROR_TEXT = 2_000  # characters of an error that are kept


class Letters:
    """Thread-safe and fork-safe, as the store is."""

    store: Store

    # --- dead letters ----------------------------------------------------------------------------------

    def _bury(self, conn: sqlite3.Connection, burial: Burial, now: float) -> None:
        """In the transaction of the mark that settles it."""
        row = conn.execute("SELECT id FROM entries WHERE seq = ?", (burial.seq,)).fetchone()
        if row is None:
            return  # shed meanwhile, and counted there
        # A copy: the row itself may be the newest, which must stay.
        conn.execute(
            "INSERT OR REPLACE INTO dead_letters (id, seq, created, level, payload, checksum, error, traceback,"
            " attempts, first_failed_at, buried_at) SELECT ?, seq, created, level, payload, checksum, ?, ?, ?, ?, ?"
            " FROM entries WHERE seq = ?",
            (
                entry_id(self.store.read_epochs(conn), burial.seq, row[0]),
                encodable(burial.error[:ERROR_TEXT]),
                burial.traceback and encodable(burial.traceback),
                burial.attempts,
                burial.first_failed_at,
                now,
                burial.seq,
            ),
        )
        # It is settled and was not delivered: BURIED in front of its id says so for as long as the row stays.
        conn.execute(
            f"UPDATE entries SET id = '{BURIED}' || (SELECT id FROM dead_letters WHERE seq = ?) WHERE seq = ?",  # noqa: S608
            (burial.seq, burial.seq),
        )

    def dead_letters(self, ids: Sequence[str] | None = None) -> list[DeadLetter]:
        """All dead letters, or those named, oldest first."""
        with self.store.lock, self.store.reading() as conn:
            rows = conn.execute(
                "SELECT id, seq, created, level, payload, error, traceback, attempts, first_failed_at, buried_at"
                " FROM dead_letters ORDER BY seq"
            ).fetchall()
        letters = [DeadLetter(*row) for row in rows]
        if ids is None:
            return letters
        wanted = set(ids)
        return [letter for letter in letters if letter.id in wanted]

    def first_dead_reason(self) -> str | None:
        """Why the oldest dead letter was buried, or None."""
        with self.store.lock, self.store.reading() as conn:
            row = conn.execute("SELECT error FROM dead_letters ORDER BY seq LIMIT 1").fetchone()
        return None if row is None else str(row[0])

    def dead_keys(self) -> list[tuple[int, str]]:
        """Seq and id of all dead letters, oldest first."""
        with self.store.lock, self.store.reading() as conn:
            return conn.execute("SELECT seq, id FROM dead_letters ORDER BY seq").fetchall()

    def retry_dead(self, ids: Sequence[str] | None = None) -> int:
        """Requeue dead letters (all, or those named): pending again at the end of the line, with their ids."""
        return self._redrive(
            ids,
            "INSERT INTO entries (created, level, payload, checksum, id)"
            " SELECT created, level, payload, checksum, id FROM dead_letters WHERE id = ?",
        )

    def drop_dead(self, ids: Sequence[str] | None = None) -> int:
        """Delete dead letters (all, or those named) for good."""
        return self._redrive(ids, None)

    def _redrive(self, ids: Sequence[str] | None, statement: str | None) -> int:
        if ids is None:
            ids = [id_ for _, id_ in self.dead_keys()]
        total = 0
        for first in range(0, len(ids), REDRIVE_ROWS):  # those who log wait for one transaction, not for all
            with self.store.lock, self.store.transaction() as conn:
                count = 0
                for id_ in ids[first : first + REDRIVE_ROWS]:
                    if statement is not None:
                        conn.execute(statement, (id_,))
                    count += conn.execute("DELETE FROM dead_letters WHERE id = ?", (id_,)).rowcount
                conn.execute("UPDATE cursor SET dead = max(0, dead - ?)", (count,))
                if statement is not None:
                    aging.note(conn, time.time())  # or what max_age buried would be buried again at once
            total += count
        return total

    # --- drops --------------------------------------------------------------------------------------------

    def untold_drops(self) -> list[Drop]:
        """What was dropped and no record has told the target of, the most severe first."""
        with self.store.lock, self.store.reading() as conn:
            rows = conn.execute(
                "SELECT level, count - told, first_at, last_at FROM drops WHERE count > told ORDER BY level DESC"
            ).fetchall()
        return [Drop(*row) for row in rows]

    def tell_drops(self, row: tuple[float, int, str, int], drops: Sequence[Drop]) -> None:
        """Append the record that tells of ``drops``, and note that they were told, in one transaction."""
        with self.store.lock, self.store.transaction() as conn:
            conn.execute(INSERT_ONE, row)
            conn.executemany(
                "UPDATE drops SET told = told + ? WHERE level = ?", [(drop.records, drop.level) for drop in drops]
            )
