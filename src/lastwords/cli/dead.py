"""``lastwords dead list|retry|drop|bury``: entries that were buried, with the reason."""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import itertools
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from . import dead_bury, options, output

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lastwords.journal.line import DeadLetter, Line

EXAMPLES = """
lastwords dead list /var/lib/app/mail.db
lastwords dead retry /var/lib/app/mail.db 17 18
lastwords dead drop --all /var/lib/app/mail.db
lastwords dead bury /var/lib/app/mail.db
"""
EXAMPLES_LIST = """
lastwords dead list /var/lib/app/mail.db
lastwords dead list --config /etc/app/logging.toml --grep '550 '
lastwords dead list --traceback '/var/lib/app/*.db'
lastwords dead list --json /var/lib/app/mail.db | jq -r '.[].id'
"""
EXAMPLES_RETRY = """
lastwords dead retry /var/lib/app/mail.db 17 18
lastwords dead retry --all /var/lib/app/mail.db
lastwords dead retry --all --config /etc/app/logging.toml
"""
EXAMPLES_DROP = """
lastwords dead drop /var/lib/app/mail.db 17
lastwords dead drop --config /etc/app/logging.toml 17 18
lastwords dead drop --all --yes /var/lib/app/mail.db
"""


@click.group(epilog=output.examples(EXAMPLES))
def command() -> None:
    """List, requeue or delete dead letters; bury an entry by hand."""


command.add_command(dead_bury.command)


# --- list -------------------------------------------------------------------------------------------------


def _as_dict(path: str, letter: DeadLetter) -> dict[str, Any]:
    """A dead letter for programs. Its payload is shown decoded, if it decodes."""
    from lastwords.cli import entries
    from lastwords.record.codec import DecodeError, decode

    said: dict[str, Any] = {"journal": path, "seq": letter.seq, "id": letter.id}
    try:
        entry = decode(seq=letter.seq, id=letter.id, created=letter.created, level=letter.level, payload=letter.payload)
        said |= entries.as_dict(entry)
        said["record_traceback"] = said.pop("traceback")
    except DecodeError as error:
        said |= entries.when_and_level(letter.created, letter.level)
        said |= {"logger": "?", "message": f"(cannot be shown: {error})", "extra": {}, "record_traceback": None}
    return said | {
        "error": letter.error,
        "traceback": letter.traceback,
        "attempts": letter.attempts if isinstance(letter.attempts, int) else 0,
        "first_failed": output.iso(letter.first_failed_at),
        "buried": output.iso(letter.buried_at),
        "_created": letter.created,
        "_times": (letter.first_failed_at, letter.buried_at),
    }


def _has_text(letter: dict[str, Any], text: str | None) -> bool:
    parts = (letter["message"], letter["record_traceback"], letter["error"], letter["traceback"])
    return text is None or any(text.casefold() in part.casefold() for part in parts if isinstance(part, str))


def _print(letters: Sequence[dict[str, Any]], *, traceback: bool, several: bool) -> None:
    for letter in letters:
        where = f"{letter['journal']}: " if several else ""
        head = f"{where}{letter['seq']!s:>8}  {output.moment(letter['_created'])}  {letter['levelname']!s:<8}"
        output.echo(output.plain(f"{head}  {letter['logger']}  {letter['message']}"))
        first, buried = letter["_times"]
        tries = f"after {output.many(letter['attempts'], 'attempt')}"
        if first and letter["attempts"] > 1:
            tries += f" since {output.moment(first)[:19]}"
        output.echo(output.plain(f"          {letter['error']}"))
        output.echo(output.plain(f"          buried {output.moment(buried)[:19]} {tries}"))
        if traceback and letter["traceback"]:
            for line in str(letter["traceback"]).rstrip("\n").split("\n"):
                output.echo("          " + output.plain(line, keep="\t"))


@command.command("list", epilog=output.examples(EXAMPLES_LIST))
@options.journals
@options.of_config
@options.grep
@options.limit
@click.option("--traceback", is_flag=True, help="Also print the traceback of the last attempt.")
@options.json_
def list_(
    *,
    journals: tuple[str, ...],
    config: str | None,
    handler: str | None,
    grep: str | None,
    limit: int | None,
    traceback: bool,
    as_json: bool,
) -> None:
    """Show dead letters, with the reason.

    What they said, why they were buried, after how many attempts. --grep also looks at the reason.
    """
    from lastwords.errors import JournalError
    from lastwords.journal import readonly
    from lastwords.journal.explain import explained

    paths = options.named_by(journals, config, handler)
    letters: list[dict[str, Any]] = []
    codes = [0]
    for path in paths:
        try:
            with explained(path), readonly.look(path) as journal:
                found = (_as_dict(path, letter) for letter in journal.dead_letters())
                letters += itertools.islice((letter for letter in found if _has_text(letter, grep)), limit)
        except JournalError as error:
            output.complain(error)
            codes.append(error.exit_code)
    if as_json:
        shown = [{key: value for key, value in letter.items() if not key.startswith("_")} for letter in letters]
        output.echo(output.as_json(shown))
    else:
        _print(letters, traceback=traceback, several=len(paths) > 1)
        if letters:
            path = shlex.quote(letters[0]["journal"])
            output.advise(f"when the cause is gone: `lastwords dead retry --all {path}`")
    output.leave(output.worst(codes))


# --- retry, drop ------------------------------------------------------------------------------------------

letters_ = click.argument("letters", nargs=-1, metavar="[SEQ|ID]...")
all_ = click.option("--all", "everything", is_flag=True, help="All dead letters of the journal.")


class Chosen(NamedTuple):
    """Dead letters of one journal, by their ids."""

    path: str
    ids: list[str]


def _choose(
    journal: str | None, letters: tuple[str, ...], config: str | None, handler: str | None, *, everything: bool
) -> Chosen:
    """What the command line names. With --config there is no JOURNAL, and all arguments are letters."""
    from lastwords.journal import readonly
    from lastwords.journal.explain import explained

    if config is not None and journal is not None:
        letters = (journal, *letters)
        journal = None
    if bool(letters) == everything:
        raise click.UsageError("name dead letters by SEQ or ID, or say --all", click.get_current_context())
    path = options.only(journal, config, handler)
    with explained(path), readonly.look(path) as opened:  # a damaged or foreign file is not touched
        return Chosen(path, _ids(opened.dead_keys(), letters))


def _change(chosen: Chosen, change: Callable[[Line, list[str]], int]) -> int:
    """Do ``change`` to the chosen letters; returns how many."""
    from lastwords.journal.explain import explained
    from lastwords.journal.line import Line

    if not chosen.ids:
        return 0
    with explained(chosen.path), Line.open(chosen.path) as journal:
        return change(journal, chosen.ids)


def _ids(keys: Sequence[tuple[int, str]], letters: tuple[str, ...]) -> list[str]:
    """The ids that ``letters`` name, by seq or by id; all of ``keys`` if none is named."""
    if not letters:
        return [id_ for _, id_ in keys]
    found: dict[str, None] = {}
    for letter in letters:
        matches = [id_ for seq, id_ in keys if letter in {id_, str(seq)}]
        if len(matches) > 1:
            raise click.BadParameter(f"{letter} is the seq of several: {', '.join(matches)}", param_hint="SEQ|ID")
        if not matches:
            raise NoLetter(f"there is no dead letter {letter}; see `lastwords dead list`")
        found[matches[0]] = None
    return list(found)


class NoLetter(click.ClickException):
    """A dead letter that is not there."""

    exit_code = 66

    def show(self, file: Any = None) -> None:
        output.complain(self.message)


@command.command(epilog=output.examples(EXAMPLES_RETRY))
@options.journal
@letters_
@options.of_config
@all_
@options.json_
def retry(
    *,
    journal: str | None,
    letters: tuple[str, ...],
    config: str | None,
    handler: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Requeue dead letters: they are pending again.

    They go to the end of the line and keep their ids. The service, or `lastwords flush`, delivers them. With --config,
    no JOURNAL is named.
    """
    chosen = _choose(journal, letters, config, handler, everything=everything)
    count = _change(chosen, lambda opened, ids: opened.retry_dead(ids))
    output.echo(output.as_json({"requeued": count}) if as_json else f"requeued {count:,}")
    output.leave(0)


@command.command(epilog=output.examples(EXAMPLES_DROP))
@options.journal
@letters_
@options.of_config
@all_
@options.yes
@options.json_
def drop(
    *,
    journal: str | None,
    letters: tuple[str, ...],
    config: str | None,
    handler: str | None,
    everything: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete dead letters for good: no target ever gets them.

    Asks before; without a terminal it wants --yes. With --config, no JOURNAL is named.
    """
    chosen = _choose(journal, letters, config, handler, everything=everything)
    if chosen.ids:
        output.agreed(f"{chosen.path}: deletes {output.many(len(chosen.ids), 'dead letter')} for good", yes=yes)
    count = _change(chosen, lambda opened, ids: opened.drop_dead(ids))
    output.echo(output.as_json({"deleted": count}) if as_json else f"deleted {count:,}")
    output.leave(0)
