"""``lastwords flush``: deliver what is pending. For cron: many journals, a deadline, no word without need."""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ..runtime.clock import monotonic
from . import options, output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .delivering.job import Job

EXAMPLES = """
lastwords flush --to 'smtp://localhost/?to=ops@my.org' '/var/lib/app/*.db'
lastwords flush --config /etc/app/logging.toml
lastwords flush --config myapp.settings:LOGGING --timeout 5m
lastwords flush --takeover --to myapp.logs:deliver /var/lib/app/mail.db

# crontab, every five minutes; a mail from cron says that something is stuck
*/5 * * * * lastwords flush --quiet --config /etc/app/logging.toml
"""
OTHERWISE = "say where to deliver: --to TARGET or --config SOURCE (or $LASTWORDS_TO); to look, `lastwords list JOURNAL`"


def _say(jobs: Sequence[Job], *, quiet: bool, verbose: bool, as_json: bool) -> None:
    from .delivering.summary import summary

    if as_json:
        output.echo(output.as_json([job.as_dict() for job in jobs]))
    for job in jobs:
        if job.error is not None:
            output.complain(job.error)
            continue
        stuck = job.exit_code != 0
        left = job.is_left and sys.stderr.isatty()  # a person asked, and must not take silence for success
        if not as_json and (verbose or stuck or ((job.done or left) and not quiet)):
            output.echo(summary(job))
        for note in job.notes if verbose else ():
            output.complain(f"{job.path}: {note}")


@click.command(epilog=output.examples(EXAMPLES))
@options.journals
@options.to
@options.config
@options.handler
@click.option(
    "--timeout",
    type=options.SPAN,
    default="60",
    show_default=True,
    metavar="SPAN",
    help="Seconds (or 5m, 1h) for all journals together. What is not delivered by then stays pending.",
)
@options.takeover
@click.option(
    "--salvage",
    is_flag=True,
    help="Also set a journal aside that is too damaged to be looked at, and deliver what can be read of it.",
)
@click.option("--quiet", "-q", is_flag=True, help="Say only what went wrong or remains.")
@click.option("--verbose", "-v", is_flag=True, help="Say something about every journal.")
@options.json_
def command(
    *,
    journals: tuple[str, ...],
    to: str | None,
    config: str | None,
    handler: str | None,
    timeout: float,
    takeover: bool,
    salvage: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Deliver and settle what is pending: the job for cron.

    JOURNAL is a path or a quoted pattern; with --config and no JOURNAL, those of the configuration that exist. Says
    nothing when there is nothing to say. A journal that another live process delivers from is left to it. Delivered
    entries are pruned as their service would prune them.
    """
    from .delivering import destination, sources, together, waiting

    if timeout <= 0:
        raise click.BadParameter("must be more than 0", param_hint="--timeout")
    began = monotonic()
    if to is not None and config is None and (stream := destination.stream_of(to)):
        raise click.UsageError(
            f"flush settles, and {stream}: is for looking: `lastwords replay --to {stream}: [--settle]`"
        )
    source = sources.choose(to, config, handler, journals, otherwise=OTHERWISE)
    looked = sources.look(source, named=bool(journals))
    if salvage:
        looked = [(job, wanted or job.forgive_damage()) for job, wanted in looked]
    to_do = [job for job, wanted in looked if wanted and sources.equip(source, job)]
    left = max(0.1, timeout - (monotonic() - began))
    if not quiet:
        waiting.Waiting(to_do, left)
    interrupted = together.run(
        to_do, lambda group, deadline: together.settle_group(group, deadline, take_over=takeover), timeout=left
    )
    jobs = [job for job, _ in looked]
    _say(jobs, quiet=quiet, verbose=verbose, as_json=as_json)
    output.leave(interrupted or output.worst(job.exit_code for job in jobs))
