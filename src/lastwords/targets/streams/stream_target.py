"""What the engines share: a batch of entries, cut into runs of one epoch that an engine takes all or nothing.

Rules
-----
* An id is ``<epoch>-<seq>``. What an engine has is known per epoch (see ``covered``), so a run has one epoch.
* A journal is input: an id of another form becomes an epoch of its own, and what goes into names of subjects, keys and
  groups has letters, digits, ``-`` and ``_`` only.
* An entry that is larger than the engine ever takes is refused by name, after the others were accepted.
* What was accepted before a failure is said (``TryAgain(accepted=n)``), so that it is settled at once.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from typing import TYPE_CHECKING

import msgspec

from ...errors import Rejected, TryAgain
from ..reading_ahead import ReadsAhead
from ..wording import as_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...record.codec import Entry

MOST_IN_A_RUN = 1_000  # what JetStream takes in one atomic batch

_TOO_HIGH = 10**18
_PLAIN_ID = re.compile(r"([0-9A-Za-z_][0-9A-Za-z_-]{0,63})-(\d{1,18})", re.ASCII)


class Item(msgspec.Struct, gc=False):
    """An entry as an engine takes it."""

    epoch: str
    seq: int
    id: str
    payload: bytes
    entry: Entry


def items_of(entries: Sequence[Entry]) -> list[Item]:
    """``entries`` with their ids taken apart. Total."""
    items, usual = [], ""  # nearly all are of one epoch, and at their own seq
    for entry in entries:
        if usual and entry.id == f"{usual}-{entry.seq}" and entry.seq < _TOO_HIGH:
            items.append(Item(usual, entry.seq, entry.id, as_json(entry), entry))
        elif _PLAIN_ID.fullmatch(entry.id) is not None:
            usual, _, seq = entry.id.rpartition("-")
            items.append(Item(usual, int(seq), entry.id, as_json(entry), entry))
        else:
            epoch = f"x{hashlib.sha256(entry.id.encode('utf-8', 'backslashreplace')).hexdigest()[:40]}"
            items.append(Item(epoch, 1, f"{epoch}-1", as_json(entry), entry))
    return items


class StreamTarget(ReadsAhead[Item]):
    """See the module. An engine writes :meth:`_open`, :meth:`_largest` and :meth:`_send`."""

    batch_size = MOST_IN_A_RUN
    _max_bytes = 8 * 2**20

    def deliver(self, entries: Sequence[Entry]) -> None:
        items = self._made_of(entries)
        self._open()
        largest = self._largest()
        large = [item for item in items if len(item.payload) > largest]
        fitting = [item for item in items if len(item.payload) <= largest] if large else items
        done = 0
        try:
            for run in runs(fitting, self.batch_size, self._max_bytes):
                self._send(run)
                done += len(run)
        except Exception as error:
            done += getattr(error, "accepted", 0)
            accepted = _leading(items, fitting[:done])
            if not accepted:
                raise
            after = getattr(error, "after", None)
            words = f"after {accepted} of {len(items)} entries: {error}"
            raise TryAgain(words, after=after, accepted=accepted) from error
        if large:
            raise Rejected(
                f"{self.label}: the entry {large[0].id} has {len(large[0].payload):,} bytes, "
                f"and at most {largest:,} are taken",
                [item.entry for item in large],
            )

    def _make(self, entries: Sequence[Entry]) -> list[Item]:
        return items_of(entries)

    @abstractmethod
    def _open(self) -> None:
        """Be connected and know what the engine can do, or raise."""

    @abstractmethod
    def _largest(self) -> int:
        """Bytes that one payload may have."""

    @abstractmethod
    def _send(self, run: list[Item]) -> None:
        """Have the engine take what it does not have of ``run``, which is of one epoch; or raise.

        ``TryAgain(accepted=n)``: the first n of the run are there. ``Rejected`` names nobody: who it is about is found
        by halving, as the entries after this run were not sent.
        """


def runs(items: list[Item], most: int, most_bytes: int) -> Iterator[list[Item]]:
    """``items`` in turn, cut where the epoch changes, at ``most`` of them and at ``most_bytes``."""
    run: list[Item] = []
    size = 0
    for item in items:
        size += len(item.payload)
        if run and (item.epoch != run[0].epoch or len(run) == most or size > most_bytes):
            yield run
            run, size = [], len(item.payload)
        run.append(item)
    if run:
        yield run


def _leading(items: list[Item], accepted: list[Item]) -> int:
    """How many of ``items``, from the first on, are in ``accepted``, which has them in the same order."""
    count = 0
    for item, taken in zip(items, accepted, strict=False):
        if item is not taken:
            break
        count += 1
    return count
