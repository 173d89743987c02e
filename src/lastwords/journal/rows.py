"""What comes out of a journal: rows, the cursor, dead letters, numbers. Plain data, no SQL."""

import math
import struct
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ..record.codec import DecodeError, Entry, checksum, decode

if TYPE_CHECKING:
    from collections.abc import Sequence


class Fenced(Exception):  # noqa: N818 - what happened, not what went wrong
    """Another process took the lease over: the mark changed nothing, deliver nothing more."""


class FilledIn(Fenced):
    """Entries came in before the one up to which is marked, out of an older file: the mark changed nothing."""


class StoredRow(msgspec.Struct, gc=False):
    """One row of ``entries``."""

    seq: int
    created: float
    level: int
    payload: bytes
    checksum: int
    id: str


class Undecodable(NamedTuple):
    """A row that cannot become an Entry, with the reason."""

    row: StoredRow
    reason: str


class Cursor(NamedTuple):
    """The cursor row as the holder of the lease last saw it."""

    settled: int
    fence: int
    attempts: int
    probe: int
    failed_at: float | None


class Drop(NamedTuple):
    """How many records of a level were dropped, and the target was not told; unix seconds of the first and the last."""

    level: int
    records: int
    first_at: float
    last_at: float


class Burial(NamedTuple):
    """Why an entry becomes a dead letter."""

    seq: int
    error: str
    traceback: str | None
    attempts: int
    first_failed_at: float | None


class DeadLetter(NamedTuple):
    """A buried entry: what it was, and why it is here. Times are unix seconds."""

    id: str
    seq: int
    created: float
    level: int
    payload: str
    error: str
    traceback: str | None
    attempts: int
    first_failed_at: float | None
    buried_at: float


class Stats(NamedTuple):
    """A journal in numbers, from the file, so true across processes.

    ``pending``: committed, not yet settled. ``delivered``, ``dead``, ``dropped``: entries since the journal was made
    (``dead``: dead letters there are now). ``buffered``: records of *this process* that are only in memory.
    ``retries``: failed attempts. ``oldest_age``: seconds since the oldest pending entry was logged.
    ``last_delivery``, ``last_error_at``: unix seconds.
    """

    pending: int
    delivered: int
    dead: int
    dropped: int
    buffered: int
    retries: int
    oldest_age: float | None
    last_error: str | None
    last_error_at: float | None
    last_delivery: float | None


UNKNOWN = Stats(0, 0, 0, 0, 0, 0, None, None, None, None)

# The columns of ``dead_letters``, and how a row of them is copied into another file.
DEAD_COLUMNS = "id, seq, created, level, payload, checksum, error, traceback, attempts, first_failed_at, buried_at"
INSERT_DEAD = (
    f"INSERT OR IGNORE INTO dead_letters ({DEAD_COLUMNS}) VALUES (?, ?, ?, ?, CAST(? AS TEXT), ?, ?, ?, ?, ?, ?)"  # noqa: S608
)


_LEAST_BYTES = 64  # of an entry; a message of one letter takes more
BURIED = "!"  # in front of the id of a row that was buried, and so settled without being delivered


def entry_id(epochs: "Sequence[tuple[int, str]]", seq: int, own: object) -> str:
    """The id of the entry at ``seq``: its own, if it was requeued or salvaged, else ``<uuid of its epoch>-<seq>``."""
    if isinstance(own, str) and own.isascii():  # else it is damaged
        return own
    return f"{epoch_of(epochs, seq)[1]}-{seq}"


def highest(consumed: int, size: int) -> int:
    """The highest seq that there can be in ``size`` bytes, if so many were ``consumed``; a damaged row may say any."""
    return consumed + size // _LEAST_BYTES


def epoch_of(epochs: "Sequence[tuple[int, str]]", seq: int) -> tuple[int, str, float]:
    """The epoch of ``seq``: where it begins, its uuid, and where the next one begins. Before the first: that one."""
    place = max(1, bisect_right(epochs, seq, key=lambda epoch: epoch[0]))
    first, uuid = epochs[place - 1]
    return first, uuid, epochs[place][0] if place < len(epochs) else math.inf


def stored(
    epochs: "Sequence[tuple[int, str]]", rows: "Sequence[tuple[int, float, int, bytes, int, str | None]]"
) -> list[StoredRow]:
    """Rows of the table, with their ids. The epoch is looked for once, as nearly all are of the first one's."""
    start, uuid, end = epoch_of(epochs, rows[0][0]) if rows else (0, "", 0)
    return [
        StoredRow(
            seq,
            created,
            level,
            payload,
            checksum_,
            f"{uuid}-{seq}" if own is None and start <= seq < end else entry_id(epochs, seq, own),
        )
        for seq, created, level, payload, checksum_, own in rows
    ]


def decode_row(row: StoredRow) -> Entry | Undecodable:
    """The row as an Entry; what does not decode says why and is to be buried."""
    created, level, payload = row.created, row.level, row.payload
    try:
        if checksum(created, level, payload) != row.checksum:
            return Undecodable(row, "the checksum does not match: the row is damaged")
        return decode(row.seq, row.id, created, level, payload)
    except (DecodeError, TypeError, ValueError, OverflowError, struct.error) as error:
        return Undecodable(row, f"the row does not decode: {error}")
