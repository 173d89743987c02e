"""What became of one journal, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastwords.delivery.loop import Outcome

from .. import output

if TYPE_CHECKING:
    from .job import Job


def summary(job: Job, *, copies: bool = False) -> str:
    """What was done, in one line."""
    parts = [f"delivered copies of {job.delivered:,}" if copies else f"delivered {job.delivered:,}"]
    if job.buried:
        parts.append(f"buried {job.buried:,}")
    if job.refused:
        parts.append(f"{job.refused:,} refused")
    if job.damaged:
        parts.append(f"{job.damaged:,} damaged")
    if job.remaining and not copies:
        parts.append(output.many(job.remaining, "remains", "remain"))
    text = f"{job.path}: {', '.join(parts)} in {output.age(job.elapsed)}"
    if job.outcome is Outcome.REMAIN and job.last_error:
        text += f"; last error: {job.last_error}"
    if job.outcome is Outcome.BUSY:
        holder = job.holder
        pid = f" (pid {holder.pid})" if holder else ""
        if job.in_the_way:
            text += f"; the process that delivers{pid} {job.in_the_way}"
        else:
            text += f"; another process delivers{pid}"
            if holder and holder.state == "waiting":
                text += ", and waits for its target: --takeover delivers without it"
    return output.plain(text)
