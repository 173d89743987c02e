"""``lastwords prune``: delete what was delivered and give the space back, now rather than when the keeper would."""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import os
import shlex
import time
from typing import Any

import click

from . import options, output

EXAMPLES = """
lastwords prune /var/lib/app/mail.db
lastwords prune --config /etc/app/logging.toml
lastwords prune --keep 7d --dead 90d --yes '/var/lib/app/*.db'
lastwords prune --keep 0 --json /var/lib/app/mail.db
"""


WAL_LEFT = 64 * 2**10  # bytes: what a service has written meanwhile is less


def prune(path: str, keep: float | None, dead: float | None) -> dict[str, Any]:
    """Prune one journal. Raises JournalError."""
    from lastwords.cli.delivering import deliver
    from lastwords.cli.delivering.job import kept
    from lastwords.journal import readonly, tidy, wal
    from lastwords.journal.explain import explained
    from lastwords.journal.line import Line

    with explained(path):
        with readonly.look(path) as journal:  # a damaged or foreign file is not touched
            keep = kept(journal) if keep is None else keep
        before = sum(readonly.sizes(path))
        with Line.open(path) as journal:
            dropped = 0
            if dead is not None:
                old = [letter.id for letter in journal.dead_letters() if letter.buried_at <= time.time() - dead]
                dropped = journal.drop_dead(old) if old else 0
            pruned = deliver.make_tidy(journal.store, keep, lambda: False)
            while tidy.vacuum_slice(journal.store, 0):  # the caller wants the space back, the keeper keeps some
                pass
            wal.checkpoint(journal.store, shrink=True)
    main, left = readonly.sizes(path)
    return {
        "journal": path,
        "pruned": pruned,
        "dead_dropped": dropped,
        "bytes_before": before,
        "bytes": main + left,
        "wal_bytes": left,
    }


@click.command(epilog=output.examples(EXAMPLES))
@options.journals
@options.of_config
@click.option(
    "--keep",
    type=options.SPAN,
    metavar="SPAN",
    help="Keep delivered entries that are younger than this. Without it: as long as the service does (keep_delivered).",
)
@click.option(
    "--dead",
    type=options.SPAN,
    metavar="SPAN",
    help="Also delete dead letters buried longer ago than this, for good. Asks; without a terminal it wants --yes.",
)
@options.yes
@options.json_
def command(
    *,
    journals: tuple[str, ...],
    config: str | None,
    handler: str | None,
    keep: float | None,
    dead: float | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete delivered entries and give the space back.

    Pending entries are never deleted, and neither are dead letters without --dead. Services do this by themselves; it
    is safe beside a running one.
    """
    from lastwords.errors import JournalError

    paths = options.named_by(journals, config, handler)
    if not journals:
        paths = [path for path in paths if os.path.lexists(path)]  # of a configuration: no service has made them yet
    if dead is not None:
        which = f"buried more than {output.age(dead)} ago" if dead else "there are"
        many = paths[0] if len(paths) == 1 else output.many(len(paths), "journal")
        output.agreed(f"{many}: deletes all dead letters {which} for good", yes=yes)
    done = []
    codes = [0]
    for path in paths:
        try:
            done.append(prune(path, keep, dead))
        except JournalError as error:
            output.complain(error)
            codes.append(error.exit_code)
    if as_json:
        output.echo(output.as_json(done))
    for one in done if not as_json else ():
        text = f"{one['journal']}: pruned {output.many(one['pruned'], 'entry', 'entries')}"
        if one["dead_dropped"]:
            text += f" and {output.many(one['dead_dropped'], 'dead letter')}"
        text += f"; {output.size(one['bytes_before'])} before, {output.size(one['bytes'])} now"
        if one["wal_bytes"] > WAL_LEFT:
            wal = f"{one['journal']}-wal"
            text += (
                f"; {output.size(one['wal_bytes'])} of it in the -wal, which a program that reads it keeps from being"
                f" emptied, or that logs now: `lsof {shlex.quote(wal)}` names it"
            )
        output.echo(output.plain(text))
    output.leave(output.worst(codes))
