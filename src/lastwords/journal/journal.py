"""An existing journal, for those who look at it or work on its dead letters: :class:`lastwords.Journal`.

Only what README and the manual name is here. What delivery, upkeep and the command line work with is
:class:`lastwords.journal.line.Line`; its marks are fenced, and not for anybody's use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from .line import Line

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from ..record.codec import Entry
    from .rows import DeadLetter, Stats, Undecodable


class Journal:
    """An existing journal, opened from outside of the program that logs into it, or beside it.

    ``path``: of the file; ``~`` is not expanded. Raises :class:`lastwords.JournalError`, with ``path`` and ``hint``, if
    there is none, or it is foreign, damaged, too new or not to be opened; so does every method if the file cannot be
    read or written later. ``close()`` it, or use it as a context manager. Thread-safe; a forked child may go on using
    it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._line = Line.open(path)
        self.path = self._line.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; idempotent."""
        self._line.close()

    def stats(self) -> Stats:
        """The journal in numbers; a few microseconds, whatever its size."""
        return self._line.stats()

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
        """Entries in order, filtered; read in slices, so memory stays small and nobody who logs waits.

        ``pending``: those that wait for delivery. ``settled``: those that were delivered, buried or dropped and are
        not pruned yet. ``first``, ``last``: seqs, both included. ``since`` (included), ``until`` (not): unix seconds.
        ``min_level``: a level number. ``limit``: how many at most. A row that does not decode is an ``Undecodable``,
        with its row and the reason.
        """
        return self._line.entries(
            pending=pending,
            settled=settled,
            first=first,
            last=last,
            since=since,
            until=until,
            min_level=min_level,
            limit=limit,
        )

    def dead_letters(self, ids: Sequence[str] | None = None) -> list[DeadLetter]:
        """All dead letters, or those with these ids, oldest first."""
        return self._line.dead_letters(ids)

    def retry_dead(self, ids: Sequence[str] | None = None) -> int:
        """Requeue dead letters (all, or those with these ids): pending again at the end of the line, with their ids.

        Returns how many.
        """
        return self._line.retry_dead(ids)

    def drop_dead(self, ids: Sequence[str] | None = None) -> int:
        """Delete dead letters (all, or those with these ids) for good; returns how many."""
        return self._line.drop_dead(ids)
