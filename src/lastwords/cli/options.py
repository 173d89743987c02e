"""Options and arguments that several verbs share, and the types of what a user types."""

from __future__ import annotations

import glob
import logging
import os
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from lastwords.errors import JournalError
from lastwords.journal import files

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

if TYPE_CHECKING:  # click 8.1 has no type parameters
    FloatType = click.ParamType[float]
    IntType = click.ParamType[int]
    SeqsType = click.ParamType["Seqs"]
else:
    FloatType = IntType = SeqsType = click.ParamType

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d|w)?", re.ASCII)
_SIDE_FILE = re.compile(r"(-wal|-shm|-journal|\.commit|\.lock(\.\d+)?|\.damaged-[^/]*)$")


def seconds(text: str) -> float | None:
    """``90``, ``1.5s``, ``10m``, ``2h30m``, ``7d``, ``2w`` in seconds; None if it is none of these."""
    text = text.strip().lower()
    total, at = 0.0, 0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None or (found[2] is None and (at or found.end() != len(text))):
            return None
        total += float(found[1]) * _UNITS[found[2] or "s"]
        at = found.end()
        while at < len(text) and text[at] == " ":
            at += 1
    return total if text else None


class Span(FloatType):
    """A span of time."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = seconds(value)
        if found is None:
            self.fail(f"{value!r} is not a span of time such as 90, 30s, 15m, 2h30m or 7d", param, ctx)
        return found


class When(FloatType):
    """A moment: ISO 8601 (local time unless it says otherwise), or a span before now."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        if value.strip().lower() == "now":
            return time.time()
        ago = seconds(value) if re.search("[a-z]", value.lower()) else None
        if ago is not None:
            return time.time() - ago
        try:
            return datetime.fromisoformat(value.strip()).timestamp()
        except (ValueError, OverflowError, OSError):
            self.fail(
                f"{value!r} is neither a time such as 2026-11-22T14:00 nor a span before now such as 2h", param, ctx
            )


class Level(IntType):
    """A level: its name, in any case, or its number."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if re.fullmatch(r"-?[0-9]{1,18}", value):
            return int(value)
        known = logging.getLevelNamesMapping()
        if value.upper() not in known:
            self.fail(f"{value!r} is neither a number nor one of {', '.join(known)}", param, ctx)
        return known[value.upper()]


class Seqs(NamedTuple):
    """A range of seqs, both ends included."""

    first: int | None
    last: int | None


class SeqRange(SeqsType):
    """``A-B``, ``A-``, ``-B`` or ``A``."""

    name = "A-B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Seqs:
        if isinstance(value, Seqs):
            return value
        found = re.fullmatch(r"([0-9]{1,18})?(-)?([0-9]{1,18})?", value.strip())
        if found is None or not (found[1] or found[3]) or (found[1] and found[3] and not found[2]):
            self.fail(f"{value!r} is not a range of seqs such as 10-20, 10-, -20 or 10", param, ctx)
        first = int(found[1]) if found[1] else None
        last = int(found[3]) if found[3] else None if found[2] else first
        if first is not None and last is not None and last < first:
            self.fail(f"{value!r} ends before it begins", param, ctx)
        return Seqs(first, last)


SPAN, WHEN, LEVEL, SEQS = Span(), When(), Level(), SeqRange()


def named(*marks: Callable[[F], F]) -> Callable[[F], F]:
    """Several click decorators as one, in the order in which the help shows them."""

    def decorate(function: F) -> F:
        for mark in reversed(marks):
            function = mark(function)
        return function

    return decorate


# --- journals ---------------------------------------------------------------------------------------------

journals = click.argument("journals", nargs=-1, metavar="[JOURNAL]...")
journal = click.argument("journal", required=False, metavar="[JOURNAL]")


class Named(NamedTuple):
    """The journals that a command line names. ``patterns``: there was a pattern, so none may be right."""

    paths: list[str]
    patterns: bool


def expand(names: tuple[str, ...]) -> Named:
    """Absolute paths, patterns expanded (quoted ones, as in a crontab), each journal once, no side files.

    A pattern that matches nothing because a folder cannot be read stands for itself: whoever looks at it says so.
    """
    found: dict[str, None] = {}
    patterns = False
    for name in names:
        path = _absolute(name) if name else ""
        if not path or "\0" in path:
            raise click.BadParameter(f"{name!r} is not the path of a journal", param_hint="JOURNAL")
        if not glob.has_magic(name) or os.path.lexists(path):
            found[path] = None
            continue
        patterns = True
        matches = [match for match in sorted(glob.glob(path, recursive=True)) if _is_journal(match)]
        if not matches and files.unreadable_folder(path) is not None:
            matches = [path]
        found |= dict.fromkeys(matches)
    return Named(list(found), patterns)


def _is_journal(path: str) -> bool:
    return os.path.isfile(path) and not _SIDE_FILE.search(path)


def _absolute(name: str) -> str:
    try:
        return os.path.abspath(os.path.expanduser(name))
    except FileNotFoundError as error:
        raise JournalError(name, "the current folder no longer exists", "give an absolute path") from error


def required(names: tuple[str, ...]) -> list[str]:
    """:func:`expand`, for verbs that want at least one name."""
    if not names:
        raise click.UsageError("name at least one JOURNAL", click.get_current_context())
    return expand(names).paths


def named_by(names: tuple[str, ...], config: str | None, handler: str | None) -> list[str]:
    """The journals that a command line names, or those of its configuration. For verbs that deliver nothing."""
    if config is None:
        if handler is not None:
            raise click.UsageError("--handler chooses from a --config", click.get_current_context())
        return required(names)
    from .delivering.sources import FromConfig  # noqa: PLC0415 - --help must not pay for it

    return FromConfig(config, handler, names).paths()


def only(name: str | None, config: str | None, handler: str | None) -> str:
    """:func:`named_by`, for verbs that want exactly one journal."""
    found = named_by(() if name is None else (name,), config, handler)
    if len(found) != 1:
        what = f"{name!r} matches" if name is not None else f"--config {config} has"
        how = "name exactly one" if name is not None else "choose one with --handler, or name it"
        raise click.UsageError(f"{what} {len(found)} journals; {how}", click.get_current_context())
    return found[0]


# --- filters -----------------------------------------------------------------------------------------------

level = click.option("--level", type=LEVEL, help="Only entries of this level or above: a name or a number.")
since = click.option("--since", type=WHEN, help="Only entries logged since then: ISO 8601, or 2h for 2 hours ago.")
until = click.option("--until", type=WHEN, help="Only entries logged before this time: ISO 8601, or 30m.")
logger = click.option("--logger", metavar="NAME", help="Only entries of this logger and of its children.")
seq = click.option("--seq", "seqs", type=SEQS, help="Only entries in this range of seqs: 10-20, 10-, -20 or 10.")
grep = click.option(
    "--grep",
    metavar="TEXT",
    help="Only entries with TEXT in the message or the traceback: as it stands, upper or lower case.",
)
yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
limit = click.option("--limit", "-n", type=click.IntRange(1), metavar="N", help="At most N entries, the oldest.")
delivered = click.option(
    "--delivered",
    is_flag=True,
    help="Delivered entries that the journal still keeps (keep_delivered), instead of the pending ones.",
)
json_ = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

# --- delivery ----------------------------------------------------------------------------------------------

to = click.option(
    "--to",
    metavar="TARGET",
    envvar="LASTWORDS_TO",
    show_envvar=True,
    help="Where to deliver: a URL (smtp://..., https://..., file:PATH, stdout:), or module:object, the object being a"
    " logging.Handler, a lastwords.Target, a function deliver(entries), or a class of these that needs no arguments."
    " The current folder comes last on the import path.",
)
config = click.option(
    "--config",
    metavar="SOURCE",
    help="Deliver as the application does: its dictConfig, as FILE.toml, .json, .yaml or module:NAME, or fileConfig's"
    " FILE.ini. Only its DurableHandlers are built, never its other handlers.",
)
handler = click.option("--handler", metavar="NAME", help="Of --config, use only the DurableHandler of this name.")
of_config = named(
    click.option(
        "--config",
        metavar="SOURCE",
        help="The journals of the application's dictConfig (FILE.toml, .json, .yaml or module:NAME) or fileConfig"
        " (FILE.ini).",
    ),
    handler,
)
takeover = click.option(
    "--takeover",
    is_flag=True,
    help="Take the lease even if another process holds it: for a holder that is stopped and does not answer. It is"
    " fenced off when it wakes up.",
)
