"""What an exception says, for people: in one line, and with its traceback."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from ..record.codec import Entry

if TYPE_CHECKING:
    from ..errors import Rejected


def describe(error: BaseException) -> str:
    """An exception in one line, for people."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def traceback_of(error: BaseException) -> str:
    """The text of an exception's traceback, bounded."""
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= 20_000 else text[:10_000] + "\n[...]\n" + text[-10_000:]


def named_in(error: Rejected, entries: list[Entry]) -> list[Entry]:
    """Those of ``entries`` that the target refused by name."""
    if not error.entries:
        return []
    ids = {item.id if isinstance(item, Entry) else str(item) for item in error.entries}
    return [entry for entry in entries if entry.id in ids]
