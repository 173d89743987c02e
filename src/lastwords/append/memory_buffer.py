"""Records that wait in memory while the journal takes none."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ..journal.inserts import Row

_T = TypeVar("_T")

ROW_OVERHEAD = 150  # bytes of Python objects around a buffered payload


def copied(items: deque[_T], most: int | None = None) -> list[_T]:
    """The first ``most`` of ``items`` (None: all), whatever happens to them meanwhile."""
    while True:
        try:
            return list(islice(items, most))
        except RuntimeError:  # a signal handler or a finalizer that ran here logged: "deque mutated during iteration"
            continue


class MemoryBuffer:
    """Records that wait for the journal, at most ``limit`` bytes. Not thread-safe: its owner's lock is held."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.count = 0
        self.dropped: dict[int, int] = {}  # level: how many
        self._levels: dict[int, deque[tuple[int, Row]]] = {}
        self._order = 0

    def add(self, row: Row) -> None:
        """Keep ``row``; drop the least severe, oldest ones if it is too much."""
        self._order += 1
        self._levels.setdefault(row[1], deque()).append((self._order, row))
        self.count += 1
        self.bytes += len(row[2]) + ROW_OVERHEAD
        while self.bytes > self.limit:
            level = min(self._levels)
            self._forget(level)
            self.dropped[level] = self.dropped.get(level, 0) + 1

    def oldest(self, most: int) -> list[Row]:
        """Up to ``most`` rows in the order they came; they stay until :meth:`remove`."""
        heads: list[tuple[int, Row]] = []
        for rows in list(self._levels.values()):
            heads.extend(copied(rows, most))
        heads.sort(key=lambda item: item[0])
        return [row for _, row in heads[:most]]

    def remove(self, rows: list[Row]) -> None:
        """Forget rows that :meth:`oldest` gave."""
        for row in rows:
            waiting = self._levels.get(row[1])
            if waiting and waiting[0][1] is row:  # else it was dropped meanwhile to make room
                self._forget(row[1])

    def _forget(self, level: int) -> None:
        rows = self._levels[level]
        _, row = rows.popleft()
        if not rows:
            del self._levels[level]
        self.count -= 1
        self.bytes -= len(row[2]) + ROW_OVERHEAD

    @property
    def is_half_full(self) -> bool:
        """True if it is time to do something about it."""
        return self.bytes > self.limit // 2

    def give_back_dropped(self, drops: dict[int, int]) -> None:
        """Undo :meth:`take_dropped`."""
        for level, count in drops.items():
            self.dropped[level] = self.dropped.get(level, 0) + count

    def take_dropped(self) -> dict[int, int]:
        """What was dropped since the last call, by level."""
        dropped, self.dropped = self.dropped, {}
        return dropped
