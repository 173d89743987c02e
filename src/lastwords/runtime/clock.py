"""The clock of all deadlines and pauses: no test that freezes or moves time may freeze a drain or an exit.

freezegun and the like replace ``time.monotonic``, by name and wherever a module has bound it, before or after our
import. What they leave alone is ``time.clock_gettime`` with the monotonic clock, which is the same clock. Timestamps
of records and marks do follow a frozen clock: there it is the point.
"""

from __future__ import annotations

import os
import time
from functools import partial

# C code, and no function that a replacer of clocks looks for.
monotonic = partial(time.clock_gettime, time.CLOCK_MONOTONIC)


def about(shortest: float, longest: float) -> float:
    """Seconds between the two, by chance: whoever waits for the same thing does not look at the same time.

    Another number after a fork, too; and ``random``, with what it imports, takes 1.5 ms of a service's start.
    """
    return shortest + (longest - shortest) * os.urandom(1)[0] / 255
