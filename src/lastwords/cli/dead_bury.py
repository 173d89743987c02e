"""``lastwords dead bury``: an operator puts the first entry aside, which the line does not get past.

Rules
-----
* Only the head of the line, and only the one that was shown: if it is not the first any more when its turn comes, it
  was delivered meanwhile, and nothing is buried.
* With the lease and under its fence, as everything that moves the cursor. A service between two attempts has nothing in
  its hands, so its lease is taken over; in the midst of one it might just have been accepted, so that is waited for.
"""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lastwords.errors import JournalBusy

from ..runtime.clock import monotonic
from ..runtime.native import sleep
from . import options, output

if TYPE_CHECKING:
    from lastwords.delivery.lease import Lease
    from lastwords.journal.line import Line, Undecodable
    from lastwords.journal.rows import Cursor
    from lastwords.record.codec import Entry

EXAMPLES = """
lastwords dead bury /var/lib/app/mail.db
lastwords dead bury --yes /var/lib/app/mail.db 17
lastwords dead bury --config /etc/app/logging.toml --handler mail
"""
REASON = "by hand"
LEASE_SECONDS = 5.0  # for an attempt that is under way


class NotFirst(click.ClickException):
    """The entry is not the one that is delivered next."""

    exit_code = 66

    def show(self, file: Any = None) -> None:
        output.complain(self.message)


def _head(journal: Line, cursor: Cursor) -> Entry | Undecodable | None:
    """The entry that is delivered next."""
    rows = journal.read(cursor.settled, 1)
    return journal.decode(rows[0]) if rows else None


def _key(head: Entry | Undecodable) -> tuple[int, str]:
    from lastwords.journal.rows import Undecodable

    return (head.row.seq, head.row.id) if isinstance(head, Undecodable) else (head.seq, head.id)


def _acquire(lease: Lease, journal: Line, *, take_over: bool) -> None:
    """The lease is ours. Raises JournalBusy."""
    from lastwords.delivery import lease as lease_

    until = monotonic() + LEASE_SECONDS
    while not take_over and not lease.acquire(until=monotonic(), give_up=lambda: True):
        holder = lease_.look(journal.path)
        take_over = holder is not None and holder.state == "waiting"
        stuck = holder is not None and holder.state in {"stopped", "hung"}
        if not take_over and (stuck or monotonic() >= until):
            who = "another process" if holder is None else f"pid {holder.pid}"
            how = "is stopped" if holder is not None and holder.stopped else "is inside its target"
            hint = "try again, or go past it: `lastwords dead bury --takeover`"
            raise JournalBusy(
                journal.path, f"{who} has the lease and {how}, which may have taken the entry just now", hint
            )
        if not take_over:
            sleep(lease_.SLEEP_SECONDS)
    if take_over:
        lease.take_over()
        journal.raise_fence()


def bury(path: str, key: tuple[int, str], *, take_over: bool) -> None:
    """Bury the entry ``key`` (seq, id) if it is the first. Raises JournalError, NotFirst."""
    from lastwords.delivery.lease import Lease
    from lastwords.journal.explain import explained
    from lastwords.journal.line import Line
    from lastwords.journal.rows import Burial, Fenced

    with explained(path), Line.open(path) as journal:
        lease = Lease(path)
        try:
            _acquire(lease, journal, take_over=take_over)
            cursor = journal.cursor()
            head = _head(journal, cursor)
            if head is None or _key(head) != key:
                raise NotFirst(f"{path}: entry {key[0]} is not the first any more: nothing was buried")
            last = journal.stats().last_error
            reason = f"{REASON}; last error: {last}" if last else REASON
            burial = Burial(key[0], reason, None, cursor.attempts, cursor.failed_at)
            journal.mark(cursor, upto=key[0], delivered=0, buried=[burial])
        except Fenced as error:
            raise JournalBusy(path, "another process took the lease over", "try again") from error
        finally:
            lease.release()


def _look(path: str) -> tuple[Entry | Undecodable | None, Cursor, str | None]:
    from lastwords.journal import readonly
    from lastwords.journal.explain import explained

    with explained(path), readonly.look(path) as journal:  # a damaged or foreign file is not touched
        cursor = journal.cursor()
        return _head(journal, cursor), cursor, journal.stats().last_error


@click.command("bury", epilog=output.examples(EXAMPLES))
@options.journal
@click.argument("entry", required=False, metavar="[SEQ|ID]")
@options.of_config
@options.takeover
@options.yes
@options.json_
def command(
    *,
    journal: str | None,
    entry: str | None,
    config: str | None,
    handler: str | None,
    takeover: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Bury the first pending entry by hand: the line goes on behind it.

    For an entry that nothing gets past. Shows it and asks; without a terminal it wants --yes. With SEQ or ID, only if
    that is the first. It is kept as a dead letter: `dead retry` makes it pending again. Safe beside a running service,
    which goes on at its next attempt. With --config, no JOURNAL is named.
    """
    from .entries import as_dict, as_line

    if config is not None and journal is not None:
        journal, entry = None, journal
    path = options.only(journal, config, handler)
    head, cursor, error = _look(path)
    key = None if head is None else _key(head)
    if entry is not None and (key is None or entry not in (str(key[0]), key[1])):
        first = f"entry {key[0]} is" if key is not None else "nothing is pending"
        raise NotFirst(f"{path}: entry {entry} is not the first that waits, {first}; see `lastwords list`")
    if head is None or key is None:
        output.echo(output.as_json({"buried": None}) if as_json else f"{output.plain(path)}: nothing is pending")
        output.leave(0)
    if not as_json:
        output.echo(as_line(head))
        tried = f"          {output.many(cursor.attempts, 'attempt')} counted against it"
        output.echo(output.plain(tried + (f"; last error: {error}" if error else "")))
    output.agreed(f"{path}: buries entry {key[0]}, which will not be delivered", yes=yes)
    bury(path, key, take_over=takeover)
    output.echo(output.as_json({"buried": as_dict(head)}) if as_json else f"buried {key[0]}")
    if not as_json:
        output.advise("to have it delivered after all: `lastwords dead retry`")
    output.leave(0)
