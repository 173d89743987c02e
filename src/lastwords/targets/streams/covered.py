"""Which entries of one epoch an engine has: all up to the newest one, except some holes. Pure.

Why not a cursor. Entries arrive out of turn: a probe went ahead of a suspected entry, a dead letter was requeued, a
salvaged journal fills in behind. A bare "all up to n" would call an entry that was skipped delivered, and lose it.

The text form is kept in the engine, with the records: ``104 50-99,101`` says that everything from 0 to 104 is there
except 50 to 99 and 101. It is bounded: of too many holes the oldest two are joined, again and again. That forgets that
something is there, so that it may arrive twice; it never forgets that something is missing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Protocol, TypeVar

MOST_HOLES = 1_000

_FORM = re.compile(r"(?P<newest>\d{1,19})(?: (?P<holes>\d{1,19}(?:-\d{1,19})?(?:,\d{1,19}(?:-\d{1,19})?)*))?", re.ASCII)


class _HasSeq(Protocol):
    seq: int


_Any = TypeVar("_Any", bound=_HasSeq)


def _is_run(seqs: list[int]) -> bool:
    """True if they follow one another without a gap."""
    return bool(seqs) and seqs == list(range(seqs[0], seqs[0] + len(seqs)))


class Covered:
    """The seqs that are there. ``Covered("")`` is the state of an epoch of which the engine has nothing."""

    __slots__ = ("_holes", "newest")

    def __init__(self, text: str = "") -> None:
        self.newest = -1
        self._holes: list[tuple[int, int]] = []  # first and last, ascending, with something there between any two
        if text:
            self._read(text)

    def _read(self, text: str) -> None:
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(f"no state of an epoch: {text[:80]!r}")
        self.newest = int(found["newest"])
        before = -1
        for part in (found["holes"] or "").split(",") if found["holes"] else ():
            first, _, last = part.partition("-")
            hole = (int(first), int(last or first))
            if not before < hole[0] <= hole[1] < self.newest:
                raise ValueError(f"no state of an epoch: {text[:80]!r}")
            self._holes.append(hole)
            before = hole[1] + 1

    def __str__(self) -> str:
        if self.newest < 0:
            return ""
        holes = ",".join([f"{first}-{last}" if last > first else f"{first}" for first, last in self._holes])
        return f"{self.newest} {holes}".rstrip()

    def __contains__(self, seq: int) -> bool:
        return 0 <= seq <= self.newest and self._hole(seq) is None

    def missing(self, items: list[_Any]) -> list[_Any]:
        """Those of ``items`` whose ``seq`` is not there, each seq once."""
        seqs = [item.seq for item in items]
        if _is_run(seqs) and seqs[0] > self.newest:
            return items  # nearly always
        return list({item.seq: item for item in items if item.seq not in self}.values())

    def _hole(self, seq: int) -> int | None:
        """The index of the hole that ``seq`` is in."""
        at = bisect_right(self._holes, (seq, self.newest)) - 1
        return at if at >= 0 and self._holes[at][0] <= seq <= self._holes[at][1] else None

    def with_added(self, seqs: list[int], *, most_text: int | None = None) -> Covered:
        """The state after ``seqs`` were added; this one stays. ``most_text``: characters that its text may have."""
        after = Covered()
        after.newest, after._holes = self.newest, list(self._holes)
        if _is_run(seqs) and seqs[0] > self.newest:
            after._add(seqs[0])
            after.newest = seqs[-1]
        else:
            for seq in seqs:
                after._add(seq)
        after._bound(most_text)
        return after

    def _add(self, seq: int) -> None:
        if seq > self.newest:
            if seq > self.newest + 1:
                self._holes.append((self.newest + 1, seq - 1))
            self.newest = seq
            return
        at = self._hole(seq)
        if at is not None:
            first, last = self._holes[at]
            parts = ((first, seq - 1), (seq + 1, last))
            self._holes[at : at + 1] = [part for part in parts if part[0] <= part[1]]

    def _bound(self, most_text: int | None) -> None:
        extra = len(self._holes) - MOST_HOLES
        if extra > 0:
            self._join(extra)
        while most_text is not None and len(self._holes) > 1 and (over := len(str(self)) - most_text) > 0:
            self._join(min(len(self._holes) - 1, 1 + over // 42))  # one hole is at most 40 characters and a comma

    def _join(self, count: int) -> None:
        """The oldest ``count`` + 1 holes become one: what lies between them is forgotten."""
        self._holes[: count + 1] = [(self._holes[0][0], self._holes[count][1])]
