"""A digest as plain text, 78 columns wide where the text itself is not wider."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from .content import Gap, in_summary, period, plural, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .content import Digest, Kind, Shown

WIDTH = 78
MOST_LOGGERS = 15


def draw(digest: Digest, *, origin: str, notices: Sequence[str], footer: str) -> str:
    """The text part of the mail."""
    lines = [", ".join(f"{count:,} {name}" for _, name, count in digest.levels), origin, span(digest)]
    for notice in notices:
        lines += ["", *textwrap.wrap(f"! {notice}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)]
    lines += _summary(digest)
    lines += _by_logger(digest)
    lines += _records(digest)
    lines += _others(digest)
    lines += ["", "-- ", *textwrap.wrap(footer, WIDTH, break_long_words=False, break_on_hyphens=False)]
    return "\n".join(lines) + "\n"


def _heading(text: str) -> list[str]:
    return ["", text, "-" * len(text)]


def _summary(digest: Digest) -> list[str]:
    if len(digest.kinds) == 1 and digest.count == 1:
        return []
    lines = _heading("What happened")
    named, rest = in_summary(digest)
    for kind in named:
        lines += _kind(kind, digest)
    return [*lines, rest] if rest else lines


def _kind(kind: Kind, digest: Digest) -> list[str]:
    exception = f" ({kind.exception})" if kind.exception else ""
    lines = [
        f"{kind.count:>6,} x  [{kind.number}] {kind.level_name} {kind.logger}{exception}",
        f"          {kind.title}",
    ]
    examples = kind.examples
    for text, count in examples:
        lines.append(f"            {f'{count:,} x' if count > 1 else '-'} {text}")
    if len(kind.texts) > len(examples) > 0:
        lines.append(f"            and {plural(len(kind.texts) - len(examples), 'other text')}")
    lines.append(f"          {period(kind, digest)}")
    return lines


def _by_logger(digest: Digest) -> list[str]:
    if len(digest.loggers) < 2:
        return []
    lines = _heading("By logger")
    for name, counts in digest.loggers[:MOST_LOGGERS]:
        lines.append(
            f"{sum(n for _, n in counts):>6,} x  {name}: " + ", ".join(f"{n:,} {level}" for level, n in counts)
        )
    rest = digest.loggers[MOST_LOGGERS:]
    if rest:
        lines.append(f"{sum(n for _, counts in rest for _, n in counts):>6,} x  {len(rest)} other loggers")
    return lines


def _records(digest: Digest) -> list[str]:
    if digest.shown == digest.count:
        lines = _heading("Records" if digest.count > 1 else "Record")
    else:
        lines = _heading(f"Records ({digest.shown:,} of {digest.count:,} in full, the others counted where they were)")
    for item in digest.items:
        lines += _gap(item) if isinstance(item, Gap) else _record(item, digest)
    return lines


def _gap(gap: Gap) -> list[str]:
    of = ", ".join(f"{count:,} of [{kind.number}]" for kind, count in gap.kinds[:8])
    more = f" and {len(gap.kinds) - 8} other kinds" if len(gap.kinds) > 8 else ""
    return ["", f"    ... {gap.count:,} more: {of}{more} ..."]


def _record(shown: Shown, digest: Digest) -> list[str]:
    number = f"[{shown.kind.number}] " if digest.count > 1 else ""
    times = f"   ({shown.kind.count:,} like this)" if shown.kind.count > 1 else ""
    lines = ["", f"{number}{shown.when} {shown.level_name} {shown.logger}{times}"]
    lines += ["  " + line for line in shown.text.split("\n")]
    lines += ["  | " + line for line in shown.trace.split("\n") if shown.trace]
    lines += [f"  {key} = {value}" for key, value in shown.extras]
    lines += [f"  {shown.where}"] if shown.where else []
    lines.append(f"  id {shown.id}")
    return lines


def _others(digest: Digest) -> list[str]:
    if not digest.others:
        return []
    lines = _heading("What else the records said that are not shown")
    for kind, texts, more in digest.others:
        lines.append(f"[{kind.number}] {kind.level_name} {kind.logger}")
        lines += [f"    {f'{count:,} x' if count > 1 else '-'} {text}" for text, count in texts]
        if more:
            lines.append(f"    and {plural(more, 'other text')}")
    return lines
