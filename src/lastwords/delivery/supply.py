"""What is to be delivered next: read from the journal, or read ahead, while the target waited for its answer.

Rules
-----
* What was read ahead is given out only if all that came before it is settled, and if it is a whole batch: behind a
  smaller one more may have been committed. Else it is forgotten, and read again.
* It is read on the thread that delivers, when the target says that it has nothing better to do (``Target.meanwhile``).
* It is not kept for long: an entry that is shed meanwhile counts as dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..journal.rows import Undecodable
from ..runtime import identity
from ..runtime.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..journal.line import Line
    from ..journal.rows import StoredRow
    from ..record.codec import Entry

SLICE = 50  # entries: some half a millisecond, after which the target may look whether its answer has come
MOST_BYTES = 4 * 2**20  # of payload: where entries are that large, reading them is not what takes time
FRESH_SECONDS = 5.0
BETWEEN = 10  # entries that are decoded, some 0.1 ms, before a caller that waits has the interpreter


class Ahead:
    """The ``most`` entries beyond ``after``, read as they are iterated over. Raises nothing."""

    def __init__(self, journal: Line, after: int, most: int) -> None:
        self.after, self.most = after, most
        self.entries: list[Entry] = []
        self._journal = journal
        self._began = 0.0

    def __iter__(self) -> Iterator[list[Entry]]:
        self._began = monotonic()
        at, size = self.after, 0
        while len(self.entries) < self.most:
            try:
                rows = self._journal.read(at, min(SLICE, self.most - len(self.entries)))
            except Exception:  # whatever it is: the next read, outside the target, meets it again
                return
            size += sum([len(row.payload or b"") for row in rows])
            entries = _decodable(self._journal, rows)
            if not rows or size > MOST_BYTES or isinstance(entries, Undecodable) or len(entries) < len(rows):
                return
            at = rows[-1].seq
            self.entries += entries
            yield entries

    def is_for(self, after: int, most: int) -> bool:
        """True if it is what a read would find now."""
        is_whole = (self.after, self.most, len(self.entries)) == (after, most, most)
        return is_whole and monotonic() - self._began < FRESH_SECONDS


class Supply:
    """See the module. One thread at a time."""

    def __init__(self) -> None:
        self._ahead: Ahead | None = None

    def take(self, journal: Line, after: int, most: int) -> list[Entry] | Undecodable:
        """The next entries, at most so many, up to the first row that does not decode; that row if it is the first."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.is_for(after, most):
            return ahead.entries
        return _decodable(journal, journal.read(after, most))

    def beyond(self, journal: Line, entries: Sequence[Entry], most: int) -> Ahead | None:
        """What to read while ``entries`` are with the target; None if not much can be expected.

        Root that acts as the journal's owner is itself inside the target, and must not touch the journal as such.
        """
        self._ahead = None
        if len(entries) == most > 1 and not identity.is_acting():
            self._ahead = Ahead(journal, entries[-1].seq, most)
        return self._ahead

    def forget(self) -> None:
        """Others may deliver from now on."""
        self._ahead = None


def _decodable(journal: Line, rows: Sequence[StoredRow]) -> list[Entry] | Undecodable:
    entries: list[Entry] = []
    for number, row in enumerate(rows, 1):
        entry = journal.decode(row)
        if number % BETWEEN == 0:
            journal.store.turns.let_callers()
        if isinstance(entry, Undecodable):
            return entries or entry
        entries.append(entry)
    return entries
