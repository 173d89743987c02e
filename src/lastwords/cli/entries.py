"""Choosing entries by filters, and showing one: what ``list``, ``replay`` and ``dead list`` share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from lastwords.journal import line as line_
from lastwords.journal.rows import BURIED
from lastwords.record.codec import Entry
from lastwords.record.replayed import rendered

from . import output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lastwords.journal.line import Line, Undecodable

    from .options import Seqs


class Filter(NamedTuple):
    """What a command line asks for. Times are unix seconds."""

    level: int | None = None
    since: float | None = None
    until: float | None = None
    logger: str | None = None
    seqs: Seqs | None = None
    delivered: bool = False
    grep: str | None = None

    @property
    def given(self) -> bool:
        """True if anything was asked for."""
        return self != Filter()


def chosen(
    journal: Line, want: Filter, *, limit: int | None = None, everything: bool = False
) -> Iterator[Entry | Undecodable]:
    """The entries that ``want`` asks for, in order.

    What does not decode comes as it is, unless a logger or a text was named. ``everything``: pending and delivered
    ones. Buried entries are neither: they are dead letters, or were.
    """
    count = 0
    found = journal.entries(
        pending=not want.delivered,
        settled=want.delivered or everything,
        first=want.seqs.first if want.seqs else None,
        last=want.seqs.last if want.seqs else None,
        since=want.since,
        until=want.until,
        min_level=want.level,
    )
    for item in found:
        id_ = item.id if isinstance(item, Entry) else item.row.id
        if id_.startswith(BURIED) or not _is_of_logger(item, want.logger) or not has_text(item, want.grep):
            continue
        yield item
        count += 1
        if count == limit:
            return


def _is_of_logger(item: Entry | Undecodable, name: str | None) -> bool:
    if name is None:
        return True
    return isinstance(item, Entry) and (item.logger == name or item.logger.startswith(name + "."))


def has_text(item: Entry | Undecodable, text: str | None, *others: str | None) -> bool:
    """True if ``text`` is in the message, the traceback or one of ``others``, in upper or lower case."""
    if text is None:
        return True
    wanted = text.casefold()
    if any(wanted in other.casefold() for other in others if isinstance(other, str)):
        return True
    return isinstance(item, Entry) and (wanted in item.message.casefold() or wanted in details(item).casefold())


# --- one entry ---------------------------------------------------------------------------------------------


def level_name(level: int) -> str:
    """The name of a level as this process has it."""
    return logging.getLevelName(level) if isinstance(level, int) else "?"


def when_and_level(created: object, level: object, name: str | None = None) -> dict[str, Any]:
    """The one form that times and levels have in JSON: ISO 8601 with the zone, number and name. A row may be forged."""
    number = level if type(level) is int else None
    return {
        "time": output.iso(created) if isinstance(created, float | int) else None,
        "level": number,
        "levelname": name or ("?" if number is None else level_name(number)),
    }


def as_dict(item: Entry | Undecodable, *, traceback: bool = True) -> dict[str, Any]:
    """An entry for programs; ``error`` says why one does not decode."""
    if isinstance(item, line_.Undecodable):
        row = item.row
        return {"seq": row.seq, "id": row.id, **when_and_level(row.created, row.level), "error": item.reason}
    said: dict[str, Any] = {
        "seq": item.seq,
        "id": item.id,
        **when_and_level(item.created, item.level, item.record.levelname),
        "logger": item.logger,
        "message": item.message,
        "extra": dict(item.extra),
    }
    if traceback:
        said["traceback"] = details(item) or None
    return said


def as_line(item: Entry | Undecodable, *, traceback: bool = False) -> str:
    """An entry for people, on one line; ``traceback`` adds its further lines, indented."""
    if isinstance(item, line_.Undecodable):
        return output.plain(f"{item.row.seq:>8}  (cannot be shown: {item.reason})")
    record = item.record
    first = f"{item.seq:>8}  {output.moment(item.created)}  {record.levelname:<8}  {item.logger}  "
    if not traceback:
        return output.plain(first + item.message)
    message, *rest = item.message.split("\n")
    rest += details(item).split("\n") if details(item) else []
    lines = [output.plain(first + message), *("          " + output.plain(line, keep="\t") for line in rest)]
    return "\n".join(lines)


def details(entry: Entry) -> str:
    """Traceback and stack of an entry, as text."""
    record = entry.record
    text = rendered(record)
    stack = str(record.stack_info) if record.stack_info else ""
    return "\n".join(part for part in (str(text), stack) if part)
