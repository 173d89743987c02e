"""``lastwords replay``: deliver a journal whose process is gone, or copies of chosen entries. For people."""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from ..runtime.clock import monotonic
from ..runtime.visible import encodable
from . import options, output

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from .delivering.job import Job
    from .entries import Filter

EXAMPLES = """
lastwords replay --dry-run --config /etc/app/logging.toml
lastwords replay --yes --to 'smtp://localhost/?to=ops@my.org' mail.db
lastwords replay --to myapp.logs:deliver --limit 10 /var/lib/app/mail.db
lastwords replay --to file:/tmp/today.log --delivered --since 24h mail.db
lastwords replay --to stdout: --level error /var/lib/app/mail.db
"""
OTHERWISE = "say where to deliver: --to TARGET or --config SOURCE; to see what is in it, `lastwords list JOURNAL`"
PATIENCE_SECONDS = 60.0  # without progress and without --timeout


def _tally(job: Job, want: Filter) -> dict[str, Any]:
    """What would be delivered, without delivering."""
    from lastwords.record.codec import Entry

    from ..journal import readonly
    from ..journal.explain import explained
    from . import entries

    levels: dict[tuple[int, str], int] = {}
    count, damaged = 0, 0
    first: Any = None
    last: Any = None
    with explained(job.path), readonly.look(job.path) as journal:
        destination = journal.get_meta("destination")
        for item in entries.chosen(journal, want, limit=job.limit):
            count += 1
            if not isinstance(item, Entry):
                damaged += 1
                continue
            first, last = first or item, item
            level = item.level, item.record.levelname
            levels[level] = levels.get(level, 0) + 1
    return {
        "journal": job.path,
        "entries": count,
        "damaged": damaged,
        "levels": [{"level": n, "levelname": name, "entries": count} for (n, name), count in levels.items()],
        "first_seq": first and first.seq,
        "last_seq": last and last.seq,
        "first_time": first and output.iso(first.created),
        "last_time": last and output.iso(last.created),
        "destination": destination,
        "_times": (first and first.created, last and last.created),
    }


def _dry_run(jobs: Sequence[Job], want: Filter, *, copies: bool, as_json: bool) -> int:
    """Say what a run would do; nothing is opened for writing, built or called."""
    from lastwords.errors import JournalError

    tallies = []
    for job in jobs:
        try:
            if job.error is None:
                tallies.append(_tally(job, want))
                continue
        except JournalError as error:
            job.error = error
        assert job.error is not None
        output.complain(job.error)
    for tally in tallies:
        first, last = tally.pop("_times")
        if not as_json:
            levels = ", ".join(f"{one['entries']:,} {one['levelname']}" for one in tally["levels"])
            span = f", from {output.moment(first)} to {output.moment(last)}" if first else ""
            verb = "deliver copies of" if copies else "deliver and settle"
            output.echo(
                output.plain(
                    f"{tally['journal']}: would {verb} {output.many(tally['entries'], 'entry', 'entries')}"
                    + (f" ({levels})" if levels else "")
                    + span
                    + (f"; its own destination is {tally['destination']}" if tally["destination"] else "")
                )
            )
    if as_json:
        output.echo(output.as_json(tallies))
    codes = [job.error.exit_code for job in jobs if job.error]
    return output.worst([*codes, *(65 for tally in tallies if tally["damaged"])])


def _ask(jobs: Sequence[Job], *, yes: bool) -> None:
    """Say what is about to be settled; go on at once only if it goes where the journals' own services send it."""
    elsewhere = []
    for job in jobs:
        assert job.way is not None
        label = encodable(job.way.target.label) or "the given target"
        count = output.many(min(job.pending, job.limit or job.pending), "pending entry", "pending entries")
        output.complain(f"{job.path}: delivers and settles {count}: to {label}")
        if job.destination and job.destination != label and not job.way.own:
            elsewhere.append(f"{job.path} belongs to {job.destination}, which will not get them")
    if elsewhere:
        output.agreed("; ".join(elsewhere), yes=yes)


class _Watch:
    """Looks at the jobs ten times a second: moves the bar, and stops what makes no progress."""

    def __init__(self, jobs: Sequence[Job], bar: Any, patience: float | None, *, stream: str) -> None:
        self._jobs = jobs
        self._bar = bar
        self._patience = patience
        self._stream = stream
        self._shown = 0
        self._moved_at = monotonic()
        self.broken: str | None = None  # why nothing more can be shown

    def __call__(self) -> None:
        done = sum(job.done for job in self._jobs)
        if done != self._shown:
            if self._bar is not None:
                self._bar.update(done - self._shown)
            self._shown, self._moved_at = done, monotonic()
        elif self._patience is not None and monotonic() - self._moved_at > self._patience:
            self._stop()
        for error in map(_error, self._jobs) if self._stream else ():
            if error is not None and error.startswith(("BrokenPipeError", "OSError")):  # `| head`; a full disk
                self.broken = error
                self._stop()

    def _stop(self) -> None:
        for job in self._jobs:
            job.stop()


def _error(job: Job) -> str | None:
    return job.last_error or (job.delivery.last_error if job.delivery is not None else None)


def _bar(jobs: Sequence[Job], *, copies: bool, stream: str) -> AbstractContextManager[Any]:
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    if copies or not on_terminal or (stream and getattr(sys, stream).isatty()):
        return nullcontext()
    length = sum(min(job.pending, job.limit or job.pending) for job in jobs)
    return click.progressbar(length=length, label="Delivering", file=sys.stderr, show_pos=True)


def _deliver(
    jobs: Sequence[Job], want: Filter, *, copies: bool, timeout: float | None, takeover: bool, stream: str
) -> int | None:
    from .delivering import together, waiting
    from .delivering.copies import Copies

    def settle(group: list[Job], deadline: float | None) -> None:
        for job in group:
            if job.way is not None:  # somebody wants it now
                job.way.knobs = {**job.way.knobs, "heed_pauses": False}
        together.settle_group(group, deadline, take_over=takeover)

    def copy(group: list[Job], deadline: float | None) -> None:
        for job in group:
            Copies(job, deadline).deliver(want)

    work: Callable[[list[Job], float | None], None] = copy if copies else settle
    with _bar(jobs, copies=copies, stream=stream) as bar:
        if not stream:  # a stream that takes no more is not waited for
            waiting.Waiting(jobs, timeout, in_a_bar=bar is not None)
        watch = _Watch(jobs, bar, PATIENCE_SECONDS if timeout is None else None, stream=stream)
        interrupted = together.run(jobs, work, timeout=timeout, watch=watch)
    if watch.broken is not None:
        output.silence(stream)
        if not watch.broken.startswith("BrokenPipeError"):
            raise output.Unwritable(f"the output cannot be written to {stream}: {watch.broken}")
        output.leave(128 + 13)
    return interrupted


def _say(jobs: Sequence[Job], *, copies: bool, as_json: bool, err: bool) -> None:
    from .delivering.summary import summary

    if as_json:
        output.echo(output.as_json([job.as_dict() | {"copies": copies} for job in jobs]), err=err)
    for job in jobs:
        for note in job.notes:
            output.complain(f"{job.path}: {note}")
        if job.error is not None:
            output.complain(job.error)
        elif not as_json:
            output.echo(summary(job, copies=copies), err=err)


@click.command(epilog=output.examples(EXAMPLES))
@options.journals
@options.to
@options.config
@options.handler
@options.level
@options.since
@options.until
@options.logger
@options.seq
@options.grep
@options.delivered
@options.limit
@click.option(
    "--settle", is_flag=True, help="With --to stdout: or stderr:, settle what was shown; otherwise it stays pending."
)
@options.yes
@click.option("--dry-run", is_flag=True, help="Only say what would be delivered.")
@click.option(
    "--timeout",
    type=options.SPAN,
    metavar="SPAN",
    help="Stop after so many seconds (or 5m, 1h). Without it, a minute without any progress ends the run.",
)
@options.takeover
@options.json_
def command(
    *,
    journals: tuple[str, ...],
    to: str | None,
    config: str | None,
    handler: str | None,
    level: int | None,
    since: float | None,
    until: float | None,
    logger: str | None,
    seqs: options.Seqs | None,
    grep: str | None,
    delivered: bool,
    limit: int | None,
    settle: bool,
    yes: bool,
    dry_run: bool,
    timeout: float | None,
    takeover: bool,
    as_json: bool,
) -> None:
    """Deliver a journal whose process is gone, or copies of entries.

    Without filters, what is delivered is settled, in order; --limit stops after so many. With --level, --since,
    --until, --logger, --seq, --grep or --delivered, copies of the chosen entries are delivered, with their ids, and
    the cursor stays. stdout: and stderr: show, and settle nothing unless --settle is given.

    What is about to be settled is said before. Another destination than the journal's own is asked about; without a
    terminal it wants --yes.
    """
    from .delivering import destination, sources
    from .entries import Filter

    if timeout is not None and timeout <= 0:
        raise click.BadParameter("must be more than 0", param_hint="--timeout")
    want = Filter(level, since, until, logger, seqs, delivered, grep)
    if settle and want.given:
        raise click.UsageError("--settle and filters exclude each other: the cursor passes nothing by")
    source = sources.choose(to, config, handler, journals, otherwise=OTHERWISE)
    stream = destination.stream_of(to) if to is not None and config is None else ""
    if stream and getattr(sys, stream) is None and not dry_run:
        raise output.Unwritable(f"the output cannot be written to {stream}: it is closed")
    copies = want.given or (bool(stream) and not settle)
    looked = sources.look(source, named=bool(journals))
    jobs = [job for job, _ in looked]
    for job in jobs:
        job.limit = limit
    if dry_run:
        output.leave(_dry_run(jobs, want, copies=copies, as_json=as_json))
    wanted = [job for job in jobs if job.error is None and (copies or job.pending)]
    to_do = [job for job in wanted if sources.equip(source, job)]
    if not copies and not stream:  # with --settle it was chosen
        _ask(to_do, yes=yes)
    interrupted = _deliver(to_do, want, copies=copies, timeout=timeout, takeover=takeover, stream=stream)
    _say(jobs, copies=copies, as_json=as_json, err=stream == "stdout")
    output.leave(interrupted or output.worst(job.exit_code for job in jobs))
