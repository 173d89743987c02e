"""What can be read of a damaged file that was set aside goes into the new journal: with SQLite, then out of the pages.

Rows are read around damaged pages, see ``old_file``. If that was not all, whatever the cause, the pages are searched
for the rest, see ``raw_rows``: that takes 6 s of a processor for 200,000 rows, where SQLite takes 0.4.

``meta`` of the new journal says ``damaged_at``, ``damaged_file``, ``salvaged`` and ``unreadable``: seqs that are known
to have existed, by later ones or by what ``continuity`` noted, and could not be read.
"""

from __future__ import annotations

import os
import sqlite3
import time
from functools import partial
from typing import TYPE_CHECKING

from ..errors import JournalDenied
from ..runtime.stderr import say
from . import files, meta, set_aside
from .old_file import OldFile, count, is_within, whole
from .raw_rows import RawRows
from .sqlite_codes import text_of
from .transfer import AIM_SECONDS, Transfer

if TYPE_CHECKING:
    from .old_file import Span
    from .store import Store

SMALLEST = 512  # bytes that a page has at least


class Salvage(Transfer):
    """From a file that was set aside."""

    strict = True

    def __init__(self, name: str, marker: set_aside.Marker, store: Store) -> None:
        self._raw: RawRows | None = None  # while they are looked for
        self._gaps: list[Span] = []  # what is looked for in them, if it is not all
        self._total = 0, 0  # salvaged, and unreadable
        self._is_news = False
        self._reason = marker.reason
        with store.explaining:
            into = store.connection()
            super().__init__(OldFile(_open_aside(name), name, marker.epochs), into)
        names = self.old.read("SELECT value FROM meta WHERE key = 'journal'")
        self._end = marker.newest if names == [(marker.journal,)] else 0
        self.old.is_broken |= max(self.old.newest, self.noted) < self._end

    @property
    def left(self) -> int:
        """See :meth:`Transfer.left`."""
        return 1 if self._raw is not None else super().left

    def fetch(self) -> None:
        """See :meth:`Transfer.fetch`."""
        if self._raw is None:
            super().fetch()

    def step(self, store: Store) -> bool:
        """First what SQLite reads. If that is not all, what can be found in the pages, whatever leads to them."""
        with store.explaining:
            return self._step(store)

    def _step(self, store: Store) -> bool:
        if self._raw is not None:
            if not self._raw.find(AIM_SECONDS):
                self._move_found(self._raw, store.connection())
            return True
        if super().step(store):
            return True
        if self.is_raw or self.was_whole(store.connection()):
            return False
        lost = self.lost(store.connection())
        self.counted = max(self.old.newest, self.old.settled, *(high for _, high in lost))
        self._gaps = [] if self.old.is_broken else lost
        self._raw = RawRows(self.old.name, partial(is_within, lost) if self._gaps else None)
        return True

    def _move_found(self, raw: RawRows, into: sqlite3.Connection) -> None:
        self._raw, self.is_raw, self.end = None, True, self._end
        self.turn_to(OldFile(raw.conn, self.old.name, self.old.epochs), into)

    def wants(self, seq: int) -> bool:
        """See :meth:`Transfer.wants`."""
        return not self._gaps or is_within(self._gaps, seq, seq)

    def note(self, conn: sqlite3.Connection, moved: int, lost: list[Span], before: list[Span]) -> None:
        """See :meth:`Transfer.note`. Of all processes that are at it, and of all looks."""
        is_ours = meta.get(conn, "damaged_file") == self.old.name
        is_news = not self.is_known or moved > 0 or lost != before
        if not is_ours and not is_news:
            return  # the last words are another file's
        self._total = moved + (whole(meta.get(conn, "salvaged")) if is_ours else 0), count(lost)
        if is_news:
            self._is_news = True
            said = (time.time(), self.old.name, *self._total)
            for key, value in zip(("damaged_at", "damaged_file", "salvaged", "unreadable"), said, strict=True):
                meta.put(conn, key, str(value))

    def done(self, store: Store) -> bool:
        """See :meth:`Transfer.done`."""
        if self._is_news:  # else it was another process, or the second look
            say(
                f"journal {store.path} was damaged ({self._reason}) and is set aside as {self.old.name};"
                f" {self._total[0]:,} pending records were salvaged, {self._total[1]:,} could not be read"
            )
        return set_aside.done(self.old.name)


def _open_aside(name: str) -> sqlite3.Connection:
    """A connection to a file that was set aside, only to read."""
    if files.check_file(name) is None:
        raise files.missing(name)
    owner = files.owner_of(name.rpartition(set_aside.DAMAGED)[0])
    if not files.is_sound_at(name, owner):
        raise JournalDenied(name, f"does not belong to the journal's owner (uid {owner})", "see who made it")
    files.check_beside(name, owner)
    if os.path.getsize(name) < SMALLEST:  # SQLite removes a -wal beside such a file, also if it may only read
        return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    # Only to read: closing it then neither checkpoints nor removes the -wal, to which another process may still write.
    conn = sqlite3.connect(files.uri(name, "mode=ro"), uri=True, isolation_level=None, check_same_thread=False)
    conn.text_factory = text_of
    conn.execute("PRAGMA trusted_schema=OFF")
    return conn
