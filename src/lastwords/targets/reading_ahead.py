"""For targets that wait for an answer: what they send of the next entries is made meanwhile (``Target.meanwhile``)."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from .contract import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..record.codec import Entry

Made = TypeVar("Made")


class ReadsAhead(Target, Generic[Made]):
    """Calls :meth:`_made_of` at the beginning of ``deliver``, and goes through :meth:`_meantime` before it waits."""

    _ahead: tuple[Sequence[Entry], list[Made]] = ((), [])

    @abstractmethod
    def _make(self, entries: Sequence[Entry]) -> list[Made]:
        """What is sent of each entry."""

    def _made_of(self, entries: Sequence[Entry]) -> list[Made]:
        """The same, at once if it was made in the meantime of the call before."""
        (expected, made), self._ahead = self._ahead, ((), [])
        if expected and len(expected) == len(entries) and expected[0] is entries[0] and expected[-1] is entries[-1]:
            return made
        return self._make(entries)

    def _meantime(self) -> Iterator[None]:
        """Make ready what comes next, bit by bit, while an answer is on its way."""
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is None:
            return  # it was gone through, and here is another answer to wait for
        expected: list[Entry] = []
        made: list[Made] = []
        for entries in meanwhile:
            expected += entries
            made += self._make(entries)
            yield
        self._ahead = (expected, made)
