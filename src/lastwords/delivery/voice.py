"""What a handler says of its delivery, on stderr: that it fails, that it works again, and what waits at the end.

Rules
-----
* Once an outage, not once an attempt: a target that is down for a week is one line, and one when it is back.
* Nothing if ``logging.raiseExceptions`` is false: without logging's own complaints, none of ours.
* Only the delivering process speaks. The command line has words of its own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..journal.explain import TROUBLE
from ..runtime.stderr import say

if TYPE_CHECKING:
    from ..journal.line import Line

WHY = 300  # characters of an error


def _wait(count: int) -> str:
    return "1 entry waits" if count == 1 else f"{count:,} entries wait"


class Voice:
    """Of one handler. Used by the thread that delivers, and at the end."""

    def __init__(self, journal: Line) -> None:
        self._journal = journal
        self._told_left = False
        self.failing = False

    def pauses(self, why: str | None, seconds: float) -> None:
        """A delivery failed, and is tried again in ``seconds``."""
        if self.failing:
            return
        self.failing = True
        count = self._pending()
        waits = f" {_wait(count)}," if count else ""
        self._say(
            f"cannot be delivered: {(why or 'no reason was given')[:WHY]};{waits} next attempt in {seconds:.1f} s"
        )

    def accepted(self) -> None:
        """Something was settled."""
        if self.failing:
            self.failing = False
            self._say("is delivered again")

    def ends(self, why: str | None) -> None:
        """The process ends: what is left, where, why, and how it is delivered. Said once."""
        count = 0 if self._told_left else self._pending()
        if count:
            self._told_left = True
            self._say(
                f"{_wait(count)} there for the next run;"
                f" `lastwords flush {self._journal.path} --to TARGET` (or --config FILE) delivers without one"
                + (f"; last error: {why[:WHY]}" if why else "")
            )

    def _pending(self) -> int:
        """0 also if the journal does not say: whoever needs it says what is the matter with it, not who counts."""
        try:
            return self._journal.stats().pending
        except TROUBLE:
            return 0

    def _say(self, text: str) -> None:
        if logging.raiseExceptions:
            say(f"journal {self._journal.path}: {text}")
