"""What people and programs read: tables, sizes, ages, JSON, complaints, exit codes.

An entry is input: whoever could log chose its text. ``plain`` escapes control characters, so that a record
cannot move the cursor, rewrite a line or colour the terminal of whoever looks at it.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lastwords.runtime.visible import visible

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Sequence

    from lastwords.errors import JournalError

RANKED = (130, 143, 78, 77, 66, 65, 75)  # which exit code wins, of several journals


# What writing says of the medium and of its reader, and never of the journal or the configuration.
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENXIO, errno.EPIPE, errno.EBADF})


class Misconfigured(click.ClickException):
    """``--to`` or ``--config`` cannot be used."""

    exit_code = 78

    def show(self, file: Any = None) -> None:
        complain(self.message)


class Unwritable(Misconfigured):
    """What was to be printed cannot be written. The work is done all the same, if there was any."""

    exit_code = 74  # EX_IOERR


def unwritable(where: str, error: OSError) -> Unwritable:
    """The complaint that what we print does not get to ``where``."""
    return Unwritable(f"the output cannot be written to {where}: {error.strerror or error}")


def leave(code: int) -> NoReturn:
    """End the verb with an exit code."""
    click.get_current_context().exit(code)


def worst(codes: Iterable[int]) -> int:
    """The exit code of several journals."""
    found = set(codes)
    return next((code for code in RANKED if code in found), max(found, default=0))


def echo(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Print ``text``. A stdout that is closed swallows it; raises BrokenPipeError, and Unwritable for a full device."""
    try:
        click.echo(text, nl=nl, err=err)
    except BrokenPipeError:
        if not err:
            raise
        silence("stderr")
    except OSError as error:
        silence("stderr" if err else "stdout")  # what is left in its buffer would fail once more at the very end
        if not err:
            raise unwritable("stdout", error) from error


def complain(error: JournalError | str) -> None:
    """One line on stderr. If that cannot be written to, the exit code has to do."""
    echo(f"lastwords: {plain(str(error))}", err=True)


def agreed(what: str, *, yes: bool) -> None:
    """Go on only if somebody wants ``what``, which cannot be undone: ``--yes``, or a person at the terminal."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"{plain(what)}: add --yes", click.get_current_context())
    if not click.confirm(f"{plain(what)}. Go on?", err=True):
        complain("nothing was done")
        leave(130)


def advise(text: str) -> None:
    """A word on stderr for a person at a terminal, after what was asked for; programs do not get it."""
    if sys.stdout is not None and sys.stdout.isatty():
        complain(text)


def silence(name: str = "stdout") -> None:
    """Nobody reads this stream any more: let the interpreter's last flush go nowhere."""
    stream = getattr(sys, name)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):  # it is not a file: under a test runner; or closed
        return


_left_behind: list[threading.Event] = []


def leave_behind(finished: threading.Event) -> None:
    """A thread is inside a target that does not return; the process ends without it."""
    _left_behind.append(finished)


def threads_left_behind() -> bool:
    """True if one of them still lives."""
    return any(not finished.is_set() for finished in _left_behind)


# --- text ---------------------------------------------------------------------------------------------


def plain(text: str, *, keep: str = "") -> str:
    """``text`` with control characters escaped, but for those in ``keep``."""
    return visible(text, keep=keep)


def verbatim(text: str) -> str:
    """Paragraphs that click must not refill."""
    return "\n\n".join("\b\n" + part for part in textwrap.dedent(text).strip("\n").split("\n\n"))


def examples(text: str) -> str:
    """The examples of a verb, as the end of its help."""
    return verbatim("Examples:\n" + textwrap.indent(textwrap.dedent(text).strip("\n"), "  "))


def size(count: float | None) -> str:
    """Bytes for people."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def rough(count: int) -> str:
    """A number where there is no room for all its digits: three of them, and the unit (1.23M)."""
    value, unit = float(count), ""
    for following in "kMGT":
        if value < 999.5:
            break
        value, unit = value / 1000, following
    return f"{value:.3g}{unit}"


def age(seconds: float | None) -> str:
    """A span of time for people, two units at most."""
    if seconds is None:
        return "-"
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for name, span, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= span:
            rest = whole % span // part
            return f"{whole // span} {name} {rest} {smaller}" if rest else f"{whole // span} {name}"
    return f"{whole} s"


def moment(unix: float | None) -> str:
    """A time for people: local, to the millisecond, with its offset left out."""
    if unix is None:
        return "-"
    try:
        return datetime.fromtimestamp(unix, UTC).astimezone().isoformat(" ", "milliseconds")[:23]
    except (OverflowError, ValueError, TypeError, OSError):  # a forged row
        return f"@{unix!r}"


def iso(unix: float | None) -> str | None:
    """A time for programs: ISO 8601 in UTC."""
    if unix is None:
        return None
    try:
        return datetime.fromtimestamp(unix, UTC).isoformat(timespec="microseconds")
    except (OverflowError, ValueError, TypeError, OSError):
        return None


def many(count: int, one: str, several: str = "") -> str:
    """A count with its noun: 1 entry, 2,000 entries."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> str:
    """Aligned columns; those whose heading is in ``right`` (separated by spaces) are right-aligned."""
    cells = [list(head), *[[plain(cell) for cell in row] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    to_the_right = right.split()
    lines = []
    for line in cells:
        parts = [
            cell.rjust(width) if name in to_the_right else cell.ljust(width)
            for cell, width, name in zip(line, widths, head, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def as_json(value: Any, *, compact: bool = False) -> str:
    """JSON that any parser takes: no NaN, ASCII only, so that no terminal or locale is in the way."""
    return json.dumps(_finite(value), indent=None if compact else 2, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0.0:
        return str(value)
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
