"""Telling the target what it will never get: one record on the line says what was dropped."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from ..record.codec import encode

if TYPE_CHECKING:
    from ..journal.line import Line


def tell(journal: Line) -> bool:
    """The target accepts: put one WARNING record on the line that says what was dropped; False if nothing was."""
    drops = journal.untold_drops()
    if not drops:
        return False
    levels = ", ".join(f"{logging.getLevelName(drop.level)} {drop.records:,}" for drop in drops)
    span = min(drop.first_at for drop in drops), max(drop.last_at for drop in drops)
    first, last = (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) for at in span)
    text = (
        f"lastwords dropped {sum(drop.records for drop in drops):,} records ({levels}) between {first} and {last}:"
        f" the journal {journal.path} had no room for them"
    )
    made = logging.LogRecord("lastwords", logging.WARNING, __file__, 0, text, (), None, "drops")
    journal.tell_drops(encode(made), drops)
    return True
