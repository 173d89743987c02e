"""``lastwords list``: the entries of a journal, filtered; it may follow what arrives."""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import re
import shlex
import time
from typing import TYPE_CHECKING

import click

from . import options, output

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from lastwords.journal.line import Line, Undecodable
    from lastwords.record.codec import Entry

    from .entries import Filter

EXAMPLES = """
lastwords list /var/lib/app/mail.db
lastwords list --level error --since 2h --traceback /var/lib/app/mail.db
lastwords list --grep 'connection refused' /var/lib/app/mail.db
lastwords list --seq 100-200 --json /var/lib/app/mail.db | jq .message
lastwords list --config /etc/app/logging.toml --handler mail
lastwords list -f --format '%(asctime)s %(message)s' /var/lib/app/mail.db
"""
LOOK_SECONDS = 0.2  # a settled entry may be pruned a second after it came


def _printer(form: str, *, traceback: bool) -> Callable[[Entry | Undecodable], str]:
    from lastwords.cli import entries
    from lastwords.record.codec import Entry
    from lastwords.record.replayed import render_plainly

    if form == "json":
        return lambda item: output.as_json(entries.as_dict(item), compact=True)
    if form == "text":
        return lambda item: entries.as_line(item, traceback=traceback)
    formatter = _formatter(form)

    def formatted(item: Entry | Undecodable) -> str:
        if not isinstance(item, Entry):
            return entries.as_line(item)
        record = item.record
        if not traceback:
            record.exc_info = record.exc_text = record.stack_info = None
        else:
            render_plainly(record, formatter)
        try:
            return output.plain(formatter.format(record), keep="\n\t")
        except (ValueError, TypeError):  # %(user)d, and this entry's user is a name
            return entries.as_line(item, traceback=traceback)

    return formatted


def _formatter(form: str) -> logging.Formatter:
    """A formatter that prints - for an extra that an entry does not have."""
    import logging

    names = re.findall(r"%\((\w+)\)", form)
    try:
        formatter = logging.Formatter(form, defaults=dict.fromkeys(names, "-"))
    except ValueError as error:
        problem = str(error)
    else:
        if names:
            return formatter
        problem = "it names no attribute"
    raise click.BadParameter(
        f"{form!r} is neither text nor json nor a format of the logging module: {problem}", param_hint="--format"
    )


def show(
    journal: Line, want: Filter, limit: int | None, print_: Callable[[Entry | Undecodable], str]
) -> tuple[int, int, bool]:
    """Print what there is; returns how many, the last seq, and whether something did not decode."""
    from lastwords.cli import entries
    from lastwords.record.codec import Entry

    count, last, damaged = 0, journal.newest_seq() if limit is None else 0, False
    for item in entries.chosen(journal, want, limit=limit):
        damaged = damaged or not isinstance(item, Entry)
        output.echo(print_(item))
        last = max(last, item.seq if isinstance(item, Entry) else item.row.seq)
        count += 1
    return count, last, damaged


def follow(
    journal: Line, want: Filter, after: int, limit: int | None, print_: Callable[[Entry | Undecodable], str]
) -> None:
    """Print what arrives, delivered or not, until ``limit`` or Ctrl-C. Another file at the path is begun anew."""
    from . import entries
    from .options import Seqs

    inode = journal.store.identity
    while limit is None or limit > 0:
        time.sleep(LOOK_SECONDS)
        newest = journal.newest_seq()
        if journal.store.identity != inode:  # replaced: another journal, with seqs of its own
            inode, after = journal.store.identity, 0
        if newest <= after:
            continue
        arrived = want._replace(delivered=False, seqs=Seqs(max(after + 1, _first(want)), _last(want, newest)))
        for item in entries.chosen(journal, arrived, limit=limit, everything=True):
            output.echo(print_(item))
            if limit is not None:
                limit -= 1
        after = newest


def _first(want: Filter) -> int:
    return (want.seqs.first if want.seqs else None) or 0


def _last(want: Filter, newest: int) -> int:
    last = want.seqs.last if want.seqs else None
    return newest if last is None else min(last, newest)


def _advise(journal: Line, want: Filter) -> None:
    """Nothing was to be shown: an empty screen says less than why."""
    if want.given:
        output.advise("no entry is chosen by these filters")
        return
    stats, path = journal.stats(), shlex.quote(journal.path)
    dead = f", {output.many(stats.dead, 'dead letter')}: `lastwords dead list {path}`" if stats.dead else ""
    output.advise(f"nothing is pending; {stats.delivered:,} delivered{dead}")


@click.command(epilog=output.examples(EXAMPLES))
@options.journal
@options.of_config
@options.level
@options.since
@options.until
@options.logger
@options.seq
@options.grep
@options.limit
@options.delivered
@click.option("--follow", "-f", "following", is_flag=True, help="Go on with entries that arrive, until Ctrl-C.")
@click.option(
    "--format",
    "form",
    default="text",
    show_default=True,
    metavar="FORMAT",
    help="text; json (an object a line); or a format of the logging module, such as '%(asctime)s %(message)s'.",
)
@options.json_
@click.option("--traceback", is_flag=True, help="Also print tracebacks, and the further lines of messages.")
def command(
    *,
    journal: str | None,
    config: str | None,
    handler: str | None,
    level: int | None,
    since: float | None,
    until: float | None,
    logger: str | None,
    seqs: options.Seqs | None,
    grep: str | None,
    limit: int | None,
    delivered: bool,
    following: bool,
    form: str,
    as_json: bool,
    traceback: bool,
) -> None:
    """Print the pending entries, or those that filters choose.

    Only looks, and delivers nothing. Control characters of an entry are printed escaped.
    """
    if as_json:
        form = "json"
    print_ = _printer(form, traceback=traceback)
    from ..journal import readonly
    from ..journal.explain import explained
    from .entries import Filter

    want = Filter(level, since, until, logger, seqs, delivered, grep)
    path = options.only(journal, config, handler)
    with explained(path), readonly.look(path) as opened:
        count, last, damaged = show(opened, want, limit, print_)
        if not count and not following:
            _advise(opened, want)
        left = None if limit is None else limit - count
        if following and left != 0:
            follow(opened, want, last, left, print_)
    output.leave(65 if damaged else 0)
