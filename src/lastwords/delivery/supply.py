"""What is to be delivered next: read from the journal, or read ahead, while the target waited for its answer.

Rules
-----
* What was read ahead is given out only if all that came before it is settled, and if it is a whole batch: behind a
  smaller one more may have been committed. Else it is forgotten, and read again.
* A batch is whole when it has as many entries as are wanted, or ``MOST_BYTES`` of payload: large entries come in
  smaller batches, without a pause between them.
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
MOST_BYTES = 4 * 2**20  # less than what one read of the journal stops at
FRESH_SECONDS = 5.0
BETWEEN = 10  # entries that are decoded, some 0.1 ms, before a caller that waits has the interpreter
FLOOD = 64  # entries: where more come at once, letting callers in as often would cost them more than it saves


class Ahead:
    """The ``most`` entries beyond ``after``, read as they are iterated over. Raises nothing."""

    def __init__(self, journal: Line, after: int, most: int) -> None:
        self.after, self.most = after, most
        self.entries: list[Entry] = []
        self.is_heavy = False
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
            entries = _decodable(self._journal, rows)
            if not rows or isinstance(entries, Undecodable) or len(entries) < len(rows):
                return
            at = rows[-1].seq
            size += _weight(rows)
            self.entries += entries
            self.is_heavy = size >= MOST_BYTES
            yield entries
            if self.is_heavy:
                return

    def is_for(self, after: int, most: int) -> bool:
        """True if it is what a read would find now."""
        is_whole = len(self.entries) == most or self.is_heavy
        return is_whole and (self.after, self.most) == (after, most) and monotonic() - self._began < FRESH_SECONDS


class Supply:
    """See the module. One thread at a time."""

    def __init__(self) -> None:
        self._ahead: Ahead | None = None
        self._heavy: Sequence[Entry] | Undecodable | None = None  # what was taken last, if it has that many bytes

    def take(self, journal: Line, after: int, most: int) -> list[Entry] | Undecodable:
        """The next entries, at most so many, up to the first row that does not decode; that row if it is the first."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.is_for(after, most):
            self._heavy = ahead.entries if ahead.is_heavy else None
            return ahead.entries
        rows = journal.read(after, most)
        entries = _decodable(journal, rows)
        self._heavy = entries if _weight(rows) >= MOST_BYTES else None
        return entries

    def is_whole(self, entries: Sequence[Entry], most: int) -> bool:
        """True if there are probably more behind ``entries``, which were taken last."""
        return len(entries) >= most or entries is self._heavy

    def beyond(self, journal: Line, entries: Sequence[Entry], most: int) -> Ahead | None:
        """What to read while ``entries`` are with the target; None if not much can be expected.

        Root that acts as the journal's owner is itself inside the target, and must not touch the journal as such.
        """
        self._ahead = None
        if most > 1 and self.is_whole(entries, most) and not identity.is_acting():
            self._ahead = Ahead(journal, entries[-1].seq, most)
        return self._ahead

    def forget(self) -> None:
        """Others may deliver from now on."""
        self._ahead = self._heavy = None


def _weight(rows: Sequence[StoredRow]) -> int:
    return sum([len(row.payload or b"") for row in rows])  # else it is damaged


def _decodable(journal: Line, rows: Sequence[StoredRow]) -> list[Entry] | Undecodable:
    entries: list[Entry] = []
    between = BETWEEN if len(rows) <= FLOOD else SLICE
    for number, row in enumerate(rows, 1):
        entry = journal.decode(row)
        if number % between == 0:
            journal.store.turns.let_callers()
        if isinstance(entry, Undecodable):
            return entries or entry
        entries.append(entry)
    return entries
