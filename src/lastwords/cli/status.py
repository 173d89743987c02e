"""``lastwords status``: journals in numbers, for people, for programs, for monitors."""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import click

from . import options, output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastwords.errors import JournalError

EXAMPLES = """
lastwords status /var/lib/app/mail.db
lastwords status --config /etc/app/logging.toml
lastwords status --json '/var/lib/*/*.db' | jq '.[].pending'
lastwords status --check --crit-age 30m '/var/lib/app/*.db'
lastwords status --format prometheus --output app.prom '/var/lib/app/*.db'
"""

METRICS = (
    # name, field, type, help
    ("up", "up", "gauge", "1 if the journal could be read."),
    ("pending_entries", "pending", "gauge", "Entries that wait for delivery."),
    (
        "oldest_pending_age_seconds",
        "oldest_age_seconds",
        "gauge",
        "Age of the oldest pending entry, 0 if there is none.",
    ),
    ("delivered_entries_total", "delivered", "counter", "Entries that the target accepted."),
    ("dead_entries", "dead", "gauge", "Dead letters in the journal."),
    ("dropped_entries_total", "dropped", "counter", "Entries dropped because the journal was full."),
    ("missing_entries_total", "missing", "counter", "Acknowledged entries known to be missing, at least."),
    ("retries_total", "retries", "counter", "Failed attempts to deliver."),
    ("last_delivery_timestamp_seconds", "last_delivery", "gauge", "When an entry was last accepted."),
    ("last_error_timestamp_seconds", "last_error_at", "gauge", "When an attempt last failed."),
    ("lease_held", "lease_held", "gauge", "1 while a process delivers."),
    ("set_aside_files", "set_aside", "gauge", "Damaged predecessors that were set aside and are still there."),
    ("file_bytes", "bytes", "gauge", "Size of the journal."),
    ("wal_bytes", "wal_bytes", "gauge", "Size of its write-ahead log."),
)


TIMES = ("missing_at", "last_delivery", "last_error_at", "lease_since", "next_attempt")


def read(path: str) -> dict[str, Any]:
    """What there is to know about one journal. Never raises for the journal's sake: ``error`` says what is wrong."""
    from lastwords.errors import JournalError

    from ..journal import ownership

    try:
        with ownership.as_owner(path):
            return _read(path)
    except JournalError as error:
        return _cannot(path, error)


def _cannot(path: str, error: JournalError) -> dict[str, Any]:
    return {"journal": path, "error": str(error), "exit_code": error.exit_code, "problem": error.problem}


def _read(path: str) -> dict[str, Any]:
    from lastwords.delivery import lease
    from lastwords.errors import JournalDamaged, JournalError

    from ..journal import examination, readonly
    from ..journal.explain import explained

    state: dict[str, Any] = {"journal": path, "error": None, "exit_code": 0}
    try:
        with explained(path), readonly.look(path) as journal:
            stats = journal.stats()
            if not all(type(count) is int for count in (stats.pending, stats.delivered, stats.dead, stats.dropped)):
                raise JournalDamaged(path, "does not hold counts where they belong", "see `lastwords doctor`")
            keys = ("destination", "format", "max_bytes", "salvaged", "unreadable", "missing", "missing_at")
            meta = {key: journal.get_meta(key) for key in keys}
            missing = examination.missing(journal)
            attempts, first_dead = journal.cursor().attempts, journal.first_dead_reason()
    except JournalError as error:
        return _cannot(path, error)
    file_bytes, wal_bytes = readonly.sizes(path)
    aside = readonly.set_aside_files(path)
    holder = lease.look(path)
    return state | {
        "exit_code": 65 if aside else 0,
        "destination": None if meta["destination"] is None else str(meta["destination"]),
        "format": _whole(meta["format"]),
        "pending": stats.pending,
        "delivered": stats.delivered,
        "dead": stats.dead,
        "dropped": stats.dropped,
        "retries": stats.retries,
        "oldest_age_seconds": None if stats.oldest_age is None else round(stats.oldest_age, 3),
        "last_delivery": stats.last_delivery,
        "last_error": stats.last_error,
        "last_error_at": stats.last_error_at,
        "head_attempts": attempts,
        "first_dead": first_dead,
        "lease_pid": None if holder is None else holder.pid,
        "lease_state": "free" if holder is None else holder.state,
        "lease_since": None if holder is None else holder.since,
        "next_attempt": None if holder is None else holder.next_attempt,
        "bytes": file_bytes,
        "wal_bytes": wal_bytes,
        "max_bytes": _whole(meta["max_bytes"]),
        "set_aside": aside,
        "salvaged": _whole(meta["salvaged"]),
        "unreadable": _whole(meta["unreadable"]),
        "missing": (_whole(meta["missing"]) or 0) + (0 if missing is None else missing.records),
        "missing_at": None if missing else _seconds(meta["missing_at"]),
    }


def _seconds(text: object) -> float | None:
    try:
        return float(str(text))
    except ValueError:
        return None


def _whole(text: object) -> int | None:
    return int(str(text)) if str(text).isdecimal() else None


# --- for people and programs ------------------------------------------------------------------------------


def _show(states: Sequence[dict[str, Any]]) -> None:
    from . import status_tables

    fine = [state for state in states if not state["error"]]
    if len(states) == 1 and fine:
        output.echo(status_tables.card(fine[0]))
        return
    if fine:
        output.echo(status_tables.table(fine))
    for state in fine:
        for note in status_tables.notes(state):
            output.echo(note)


def for_programs(state: dict[str, Any]) -> dict[str, Any]:
    """Times in the one form of all JSON: ISO 8601 with its zone."""
    return {key: output.iso(value) if key in TIMES and value is not None else value for key, value in state.items()}


# --- for Prometheus ---------------------------------------------------------------------------------------


def prometheus(states: Sequence[dict[str, Any]]) -> str:
    """The text exposition format."""
    lines = []
    for name, field, kind, text in METRICS:
        samples = []
        for state in states:
            value = _sample(state, field)
            if value is not None:
                label = output.plain(state["journal"])
                label = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
                samples.append(f'lastwords_{name}{{journal="{label}"}} {value}')
        lines += [f"# HELP lastwords_{name} {text}", f"# TYPE lastwords_{name} {kind}", *samples]
    return "\n".join(lines) + "\n"


def _sample(state: dict[str, Any], field: str) -> float | int | None:
    if field == "up":
        return 0 if state["error"] else 1
    if state["error"]:
        return None
    if field == "lease_held":
        return 0 if state["lease_pid"] is None else 1
    if field == "set_aside":
        return len(state[field])
    if field == "oldest_age_seconds":
        return state[field] or 0
    value: float | int | None = state[field]
    return value


def write_whole(path: str, text: str) -> None:
    """Replace ``path`` at once, readable by all: a collector never sees half a file. Raises OSError.

    A symbolic link stays one, and so does what is no regular file: a device, a FIFO, or what the shell calls
    ``/dev/stdout`` or ``>(command)``. These are written to.
    """
    if _is_written_to(path):
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY), "w", encoding="utf-8") as file:
            file.write(text)
        return
    path = os.path.realpath(path)
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o644)
            file.write(text)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _is_written_to(path: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return True
    except FileNotFoundError:
        return False
    for _ in range(40):  # /dev/stdout is a link to one in /proc, which leads to the file that stdout is open on
        if not os.path.islink(path):
            return False
        path = os.path.join(os.path.dirname(path), os.readlink(path))
        if os.path.realpath(os.path.dirname(path)).startswith("/proc/"):
            return True
    return False


# --- for monitors -----------------------------------------------------------------------------------------


def check(states: Sequence[dict[str, Any]], limits: dict[str, tuple[float | None, float | None]]) -> tuple[int, str]:
    """A Nagios check: the code, and its line with performance data. ``limits``: field to (warning, critical)."""
    code, problems, performance = 0, [], []
    for state in states:
        name = os.path.basename(state["journal"])
        if state["error"]:
            # Damage is an emergency; what cannot be looked at is unknown.
            found = 2 if state["exit_code"] == 65 else 3
            problems.append((found, state["error"]))
            continue
        if state["set_aside"]:  # entries may be missing, until somebody has looked
            problems.append((2, f"{name}: was damaged; see {state['set_aside'][0]}"))
        for field, (warning, critical) in limits.items():
            value = state[field] or 0
            found = (
                2
                if critical is not None and value >= critical
                else 1
                if warning is not None and value >= warning
                else 0
            )
            what = {"oldest_age_seconds": f"oldest pending {output.age(value)}"}.get(field, f"{value:,} {field}")
            if found:
                problems.append((found, f"{name}: {what}"))
            unit = "s" if field == "oldest_age_seconds" else "c" if field == "dropped" else ""
            label = output.plain(f"{name} {field.removesuffix('_seconds')}").replace("'", "").replace("=", "")
            bounds = ";".join("" if bound is None else _number(bound) for bound in (warning, critical))
            performance.append(f"'{label}'={_number(value)}{unit};{bounds};0")
    # Nagios' order of gravity: critical, unknown, warning.
    gravity = (2, 3, 1)
    problems.sort(key=lambda problem: gravity.index(problem[0]))
    code = problems[0][0] if problems else 0
    word = ("OK", "WARNING", "CRITICAL", "UNKNOWN")[code]
    pending = sum(state.get("pending", 0) for state in states)
    fine = f"{output.many(len(states), 'journal')}, {pending:,} pending"
    line = f"LASTWORDS {word} - {'; '.join(text for _, text in problems) or fine}"
    return code, output.plain(line.replace("|", "/")) + (" | " + " ".join(performance) if performance else "")


def _number(value: float) -> str:
    """In full, without an exponent: monitors read digits."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


# --- the verb ---------------------------------------------------------------------------------------------

thresholds = options.named(
    click.option("--warn-pending", type=click.IntRange(1), metavar="N", help="WARNING from N pending entries on."),
    click.option("--crit-pending", type=click.IntRange(1), metavar="N", help="CRITICAL from N pending entries on."),
    click.option(
        "--warn-age", type=options.SPAN, default="15m", show_default=True, help="WARNING if the oldest is that old."
    ),
    click.option(
        "--crit-age", type=options.SPAN, default="1h", show_default=True, help="CRITICAL if the oldest is that old."
    ),
    click.option(
        "--warn-dead",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="N",
        help="WARNING from N dead letters on.",
    ),
    click.option("--crit-dead", type=click.IntRange(1), metavar="N", help="CRITICAL from N dead letters on."),
    click.option(
        "--warn-dropped",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="N",
        help="WARNING from N drops on.",
    ),
    click.option("--crit-dropped", type=click.IntRange(1), metavar="N", help="CRITICAL from N drops on."),
)


@click.command(epilog=output.examples(EXAMPLES))
@options.journals
@options.of_config
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "prometheus"]),
    default="table",
    show_default=True,
    help="How to print.",
)
@options.json_
@click.option(
    "--output",
    "file",
    metavar="FILE",
    help="Write to FILE instead, as a whole: a temporary file beside it is renamed over it. A device or a FIFO is"
    " written to.",
)
@click.option(
    "--check",
    "checking",
    is_flag=True,
    help="Be a check for Nagios and its kin: one line with performance data; exit code 0 OK, 1 WARNING, 2 CRITICAL,"
    " 3 UNKNOWN (also if no journal matches).",
)
@thresholds
def command(
    *,
    journals: tuple[str, ...],
    config: str | None,
    handler: str | None,
    form: str,
    as_json: bool,
    file: str | None,
    checking: bool,
    **bounds: float | None,
) -> None:
    """Show how many entries are pending, delivered, dead and dropped.

    JOURNAL is a path or a quoted pattern. Only looks: nothing is written to a journal, and a running service is not
    held up. Exit code 65 also while a damaged predecessor, which its service set aside, lies beside a journal.
    """
    paths = options.named_by(journals, config, handler)
    states = [read(path) for path in paths]
    if checking:
        limits = {
            field: (bounds[f"warn_{name}"], bounds[f"crit_{name}"])
            for name, field in {
                "pending": "pending",
                "age": "oldest_age_seconds",
                "dead": "dead",
                "dropped": "dropped",
            }.items()
        }
        code, line = check(states, limits) if states else (3, "LASTWORDS UNKNOWN - no journal matches")
        try:
            output.echo(line)
        except output.Unwritable as error:
            error.show()
            code = 3  # a monitor knows four codes
        output.leave(code)
    if as_json:
        form = "json"
    if form != "json":
        for state in states:
            if state["error"]:
                output.complain(state["error"])
    text = (
        output.as_json([for_programs(state) for state in states]) + "\n"
        if form == "json"
        else prometheus(states)
        if form == "prometheus"
        else ""
    )
    if file is not None:
        _write(file, text or output.as_json([for_programs(state) for state in states]) + "\n")
    elif text:
        output.echo(text, nl=False)
    else:
        _show(states)
    output.leave(output.worst(state["exit_code"] for state in states))


def _write(file: str, text: str) -> None:
    try:
        write_whole(file, text)
    except OSError as error:
        if error.errno in output.UNWRITABLE:
            raise output.unwritable(file, error) from error
        raise output.Misconfigured(f"--output {file}: {error.strerror}") from error
