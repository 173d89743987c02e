"""What ``flush`` and ``replay`` say while they wait for a target that is down: why, and when it is tried again.

Once for each target, at the first attempt that failed: a person is not to stare at a silent terminal for the whole of
--timeout, and a hundred journals of one target are not to say the same a hundred times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...runtime.clock import monotonic
from .. import output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .job import Job


class Waiting:
    """Of one run. Called by the threads of its jobs; two of one target are one thread's."""

    def __init__(self, jobs: Sequence[Job], timeout: float | None, *, in_a_bar: bool = False) -> None:
        self._until = None if timeout is None else monotonic() + timeout
        self._in_a_bar = in_a_bar
        self._told: set[int] = set()
        for job in jobs:
            job.on_pause = self._pauses

    def _pauses(self, job: Job, why: str | None, seconds: float) -> None:
        """``job`` could not be delivered, and is tried again in ``seconds``."""
        assert job.way is not None
        if id(job.way.target) in self._told:
            return
        self._told.add(id(job.way.target))
        text = f"{job.path}: cannot be delivered: {why or 'no reason was given'}; next attempt in {output.age(seconds)}"
        if self._until is not None:
            text += f", for {output.age(self._until - monotonic())} at most (--timeout)"
        if self._in_a_bar:
            output.echo("", err=True)  # else it goes on in the bar's own line
        output.complain(text)
