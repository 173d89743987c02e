"""What ``status`` shows to people: a table for several journals, a card for one. Both fit 80 columns."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import click

from . import output

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HEAD = ("JOURNAL", "PENDING", "OLDEST", "DELIVERED", "DEAD", "DROPPED", "SIZE", "HOLDER")
RIGHT = "PENDING OLDEST DELIVERED DEAD DROPPED SIZE"
LEAST_NAME = 12  # columns, for numbers in full
SLOW_SECONDS = 5.0  # of one call


def colour(text: str, name: str | None) -> str:
    """``text`` in a colour, where click finds that stdout is a terminal; NO_COLOR is honoured."""
    return text if name is None or os.environ.get("NO_COLOR") else click.style(text, fg=name)


def gravity(state: dict[str, Any]) -> str | None:
    """The colour of a journal: red for what is lost or broken, yellow for what is stuck."""
    if state["error"] or state["set_aside"] or state["dropped"] or state["missing"]:
        return "red"
    if state["dead"] or fails(state) or holder_trouble(state):
        return "yellow"
    return None


def recovered(state: dict[str, Any]) -> bool:
    """True if something was delivered after the last error."""
    return bool(state["last_delivery"] and state["last_error_at"] and state["last_delivery"] > state["last_error_at"])


def fails(state: dict[str, Any]) -> bool:
    """True if entries wait because the last attempt failed."""
    return bool(state["pending"] and state["last_error"]) and not recovered(state)


def holder_trouble(state: dict[str, Any]) -> bool:
    """True if the holder of the lease will not deliver by itself."""
    return state["lease_state"] in ("stopped", "hung")


def short_names(paths: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The folder that all share ("" if there is none), and the paths below it."""
    folder = os.path.dirname(paths[0]) if len(paths) == 1 else os.path.commonpath(paths) if paths else ""
    if folder in ("", "/"):
        return "", {path: path for path in paths}
    return folder, {path: os.path.relpath(path, folder) for path in paths}


def _cut(text: str, width: int) -> str:
    """The end of a name tells more than its beginning."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def table(states: Sequence[dict[str, Any]]) -> str:
    """One line a journal, in the width of the terminal: numbers in full, if that leaves room for names."""
    folder, names = short_names([state["journal"] for state in states])
    width = shutil.get_terminal_size((80, 24)).columns
    rows = _rows(states, lambda count: f"{count:,}")
    if (room := width - _others(rows)) < LEAST_NAME:
        rows = _rows(states, output.rough)
        room = max(len(HEAD[0]), width - _others(rows))
    rows = [[_cut(output.plain(names[state["journal"]]), room), *row] for state, row in zip(states, rows, strict=True)]
    head, *lines = output.table(HEAD, rows, right=RIGHT).splitlines()
    lines = [colour(line, gravity(state)) for line, state in zip(lines, states, strict=True)]
    return "\n".join([*([output.plain(folder) + ":"] if folder else []), head, *lines])


def _rows(states: Sequence[dict[str, Any]], number: Callable[[int], str]) -> list[list[str]]:
    """All but the names."""
    return [
        [
            number(state["pending"]),
            output.age(state["oldest_age_seconds"]),
            number(state["delivered"]),
            number(state["dead"]),
            number(state["dropped"]),
            output.size(state["bytes"] + state["wal_bytes"]),
            "-" if state["lease_pid"] is None else f"{state['lease_pid']} {state['lease_state']}",
        ]
        for state in states
    ]


def _others(rows: Sequence[Sequence[str]]) -> int:
    """Columns that all but the names take."""
    return sum(max(map(len, column)) + 2 for column in zip(HEAD[1:], *rows, strict=True))


def notes(state: dict[str, Any]) -> list[str]:
    """What does not fit in a table: damage, and why entries wait."""
    said = []
    for aside in state["set_aside"]:
        salvaged = output.many(state["salvaged"] or 0, "entry was", "entries were")
        said.append(
            f"{state['journal']}: was damaged and set aside as {aside}; {salvaged} salvaged,"
            f" {state['unreadable'] or 0:,} could not be read; remove it when you have looked"
        )
    if fails(state):
        said.append(f"{state['journal']}: last error, {_ago(state['last_error_at'])}: {state['last_error']}")
    if holder_trouble(state):
        said.append(f"{state['journal']}: {holder(state)}")
    return [output.plain(line) for line in said]


# --- a card ------------------------------------------------------------------------------------------------


def _ago(at: float | None) -> str:
    return "at an unknown time" if at is None else f"{output.age(max(0.0, time.time() - at))} ago"


def holder(state: dict[str, Any]) -> str:
    """The process that has the lease, and what it does."""
    pid, doing = state["lease_pid"], state["lease_state"]
    if pid is None:
        return "nobody delivers now"
    since = state["lease_since"]
    waits = time.time() - since if since is not None else 0.0
    if doing == "stopped":
        return f"pid {pid} has the lease and is stopped: `kill -CONT {pid}`, or `flush --takeover`"
    if doing == "hung":
        at = output.moment(since)[:19]
        return f"pid {pid} has waited for its target since {at}, {output.age(waits)}: `flush --takeover` goes past it"
    if doing == "waiting":
        return f"pid {pid} waits before its next attempt"
    return f"pid {pid} delivers" + (
        f"; its target, or that process, has not answered for {output.age(waits)}" if waits > SLOW_SECONDS else ""
    )


def _next(state: dict[str, Any]) -> str | None:
    if state["next_attempt"] is None:
        return None
    left = state["next_attempt"] - time.time()
    return f"in {output.age(left)}" if left > 0 else "now"


def card(state: dict[str, Any]) -> str:
    """All there is to know about one journal, a fact a line."""
    pending = f"{state['pending']:,}"
    if state["oldest_age_seconds"] is not None:
        pending += f", the oldest for {output.age(state['oldest_age_seconds'])}"
    last = state["last_delivery"]
    facts: list[tuple[str, str | None, str | None]] = [
        ("pending", pending, "yellow" if fails(state) else None),
        ("delivered", f"{state['delivered']:,}" + (f", the last {_ago(last)}" if last else ""), None),
        ("destination", state["destination"] or "none: its process only commits", None),
        ("holder", holder(state), "yellow" if holder_trouble(state) else None),
        ("next attempt", _next(state), None),
        ("attempts", f"{state['head_attempts']:,} at the head of the line" if state["head_attempts"] else None, None),
    ]
    if state["last_error"]:
        when = _ago(state["last_error_at"]) + (", delivered since" if recovered(state) else "")
        facts.append(("last error", f"{when}: {state['last_error']}", "yellow" if fails(state) else None))
    if state["dead"]:
        first = f"; the first: {state['first_dead']}" if state["first_dead"] else ""
        facts.append(("dead letters", f"{state['dead']:,}{first}", "yellow"))
    if state["dropped"]:
        facts.append(("dropped", f"{state['dropped']:,}, because the journal was full", "red"))
    if state["missing"]:
        when = f", found {_ago(state['missing_at'])}" if state["missing_at"] else ""
        facts.append(("missing", f"{state['missing']:,} acknowledged records, at least{when}", "red"))
    facts.append(("retries", f"{state['retries']:,}" if state["retries"] else None, None))
    most = f", at most {output.size(state['max_bytes'])}" if state["max_bytes"] else ""
    size = f"{output.size(state['bytes'])}{most}, and {output.size(state['wal_bytes'])} of -wal"
    facts.append(("size", size, None))
    lines = [output.plain(state["journal"])]
    lines += [colour(_fact(name, value), tint) for name, value, tint in facts if value is not None]
    damage = notes(state | {"last_error": None, "lease_state": None})
    return "\n".join([*lines, *(colour(line, "red") for line in damage)])


def _fact(name: str, value: str) -> str:
    """Long values go on in lines of their own, under the first."""
    import textwrap  # noqa: PLC0415 - a card only

    width = max(40, shutil.get_terminal_size((80, 24)).columns)
    return textwrap.fill(
        output.plain(value),
        width,
        initial_indent=f"  {name + ':':<14}",
        subsequent_indent=" " * 16,
        break_on_hyphens=False,
    )
