"""``lastwords watch``: journals live on a terminal.

It only looks, as ``status`` does, and keeps no transaction open between two looks. What a screen has no room for is
counted in its last line; journals with entries that wait come first.
"""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import os
import select
import sys
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ..runtime.clock import monotonic
from . import options, output, status_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

BARS = "▁▂▃▄▅▆▇█"
KEPT = 120  # looks, for the sparkline

EXAMPLES = """
lastwords watch '/var/lib/app/*.db'
lastwords watch --config /etc/app/logging.toml --interval 5
"""


@dataclass(slots=True)
class Seen:
    """What the looks at one journal gave."""

    path: str
    state: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0
    rate_in: float | None = None  # records a second
    rate_out: float | None = None
    backlog: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT))

    def look(self, state: dict[str, Any], now: float) -> None:
        """Another look: rates are those since the last one."""
        before, since = self.state, now - self.at
        self.state, self.at = state, now
        if state["error"]:
            self.rate_in = self.rate_out = None
            return
        self.backlog.append(state["pending"])
        if before and not before["error"] and since > 0:
            self.rate_out = max(0, state["delivered"] - before["delivered"]) / since
            self.rate_in = max(0, _logged(state) - _logged(before)) / since


def _logged(state: dict[str, Any]) -> int:
    return sum(state[name] for name in ("pending", "delivered", "dead", "dropped"))


def sparkline(values: list[int], width: int) -> str:
    """The last ``width`` values as bars; none is empty, so that a backlog of 1 is seen."""
    values = values[-width:]
    top = max(values, default=0)
    if not top:
        return "·" * len(values)
    return "".join("·" if value == 0 else BARS[-(-value * (len(BARS) - 1) // top)] for value in values)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _names(paths: list[str]) -> dict[str, str]:
    """Paths without the folders that all share."""
    if len(paths) == 1:
        return {paths[0]: os.path.basename(paths[0])}
    shared = os.path.commonpath(paths) if paths else ""
    return {path: os.path.relpath(path, shared) for path in paths}


# --- the screen ------------------------------------------------------------------------------------------


def _style(seen: Seen) -> str:
    return status_tables.gravity(seen.state) or ("" if seen.state["pending"] else "dim")


def _table(rows: list[Seen], names: dict[str, str], width: int) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False, expand=True, header_style="bold")
    table.add_column("JOURNAL", ratio=3, no_wrap=True, overflow="ellipsis")
    for title in ("PENDING", "OLDEST", "IN/S", "OUT/S", "DEAD"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("BACKLOG", ratio=2, no_wrap=True, overflow="crop")
    bars = max(8, width // 5)
    for seen in rows:
        state = seen.state
        name = Text(output.plain(names[seen.path]))
        if state["error"]:
            table.add_row(name, "-", "-", "-", "-", "-", Text(output.plain(state["problem"])), style=_style(seen))
            continue
        numbers = (f"{state['pending']:,}", output.age(state["oldest_age_seconds"]), _rate(seen.rate_in))
        rest = (_rate(seen.rate_out), f"{state['dead']:,}")
        table.add_row(name, *numbers, *rest, Text(sparkline(list(seen.backlog), bars)), style=_style(seen))
    return table


def _trouble(seen: list[Seen], names: dict[str, str], most: int) -> list[str]:
    """Damage, who is in the way, and why entries wait, the newest first: one line each."""
    lines = []
    for one in seen:
        if not one.state["error"] and one.state["set_aside"]:
            lines.append(f"{names[one.path]}: was damaged: see {os.path.basename(one.state['set_aside'][0])}")
        if not one.state["error"] and status_tables.holder_trouble(one.state):
            lines.append(f"{names[one.path]}: {status_tables.holder(one.state)}")
    failing = [s for s in seen if not s.state["error"] and s.state["pending"] and s.state["last_error"]]
    failing.sort(key=lambda s: -(s.state["last_error_at"] or 0.0))
    for one in failing[:most]:
        ago = output.age(max(0.0, time.time() - (one.state["last_error_at"] or 0.0)))
        lines.append(f"{names[one.path]}: {ago} ago: {one.state['last_error']}")
    return [output.plain(line) for line in lines[:most]]


def screen(seen: list[Seen], *, width: int, height: int) -> RenderableType:
    """All of it, for a terminal of that size."""
    from rich.console import Group
    from rich.text import Text

    names = _names([one.path for one in seen])
    ordered = sorted(seen, key=lambda s: (not s.state["error"], -(s.state.get("pending") or 0), s.path))
    trouble = _trouble(seen, names, max(0, min(4, height // 6)))
    room = max(1, height - 4 - len(trouble))
    pending = sum(s.state.get("pending") or 0 for s in seen)
    head = f"{output.many(len(seen), 'journal', 'journals')}, {output.many(pending, 'entry', 'entries')} pending"
    clock = time.strftime("%H:%M:%S")
    lines: list[RenderableType] = [
        Text(f"lastwords  {head}".ljust(max(0, width - len(clock))) + clock, style="bold", no_wrap=True),
        _table(ordered[:room], names, width),
        *(Text(line, style="yellow", no_wrap=True, overflow="ellipsis") for line in trouble),
    ]
    hidden = len(ordered) - room
    foot = (f"+{hidden} more  " if hidden > 0 else "") + "q quits"
    return Group(*lines, Text(foot, style="dim", no_wrap=True))


@contextmanager
def _keys() -> Iterator[None]:
    """Keys come without Return and are not shown, while stdin is a terminal; as before afterwards."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _quits(seconds: float) -> bool:
    """Wait so long; True as soon as q is typed."""
    if sys.stdin is None or not sys.stdin.isatty():
        time.sleep(seconds)
        return False
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0:
        ready, _, _ = select.select([sys.stdin], [], [], left)
        if ready and os.read(sys.stdin.fileno(), 1) in (b"q", b"Q", b"\x04", b""):
            return True
    return False


@click.command(epilog=output.examples(EXAMPLES), short_help="Watch journals live on the terminal.")
@options.journals
@options.of_config
@click.option(
    "--interval",
    type=options.SPAN,
    default="1",
    show_default=True,
    metavar="SPAN",
    help="Between two looks: 1, 500ms, 5s.",
)
@click.option("--once", is_flag=True, help="Show the screen once and end, for a pipe or a ticket.")
def command(*, journals: tuple[str, ...], config: str | None, handler: str | None, interval: float, once: bool) -> None:
    """Watch journals live: what waits, what comes and goes, and why it does not. Ends with q or Ctrl-C.

    Patterns are looked at again each time, so that new journals appear. Needs lastwords[watch] (rich).
    """
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError as error:
        raise output.Misconfigured("watch needs rich: pip install 'lastwords[watch]'") from error
    from . import status

    known: dict[str, Seen] = {}

    def look() -> list[Seen]:
        paths = options.named_by(journals, config, handler)
        for path in paths:
            known.setdefault(path, Seen(path)).look(status.read(path), monotonic())
        return [known[path] for path in paths]

    console = Console(highlight=False, emoji=False)
    if once or not console.is_terminal:
        console.print(screen(look(), width=console.width, height=10_000))
        return
    with _keys(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(screen(look(), width=console.width, height=console.height), refresh=True)
            if _quits(max(0.05, interval)):
                return
