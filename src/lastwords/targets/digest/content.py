"""What a digest says, before anything is drawn: records folded into kinds, and which of them are shown. Pure.

A *kind* is what one reader would call the same message: the same level, logger and type of exception, and the same
template (``record.msg``); where there are no arguments to tell the template by (f-strings), the same text but for
numbers. Every record of a digest is either shown or counted: in its kind's line of the summary, beside the shown
records of its kind, and at the place in the line of time where it was left out.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from ..wording import clean, clip, one_line, trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...record.codec import Entry

_NUMBERS = re.compile(r"0[xX][0-9a-fA-F]+|\b[0-9a-fA-F]{8,}(-[0-9a-fA-F]+)*\b|\d+")
MOST_EXAMPLES = 3
MOST_KINDS = 30  # in the summary
MOST_SINGLE = 10  # of those, kinds of one record: their records are below anyway
NO_TEXT = "(no text)"


class Detail(NamedTuple):
    """How much is shown.

    ``each``: records of a kind (and always its last). ``text``, ``trace``, ``extra``: characters of these. ``where``:
    whether the place in the code is named. ``texts``: of a kind's records that are not shown.
    """

    each: int
    text: int
    trace: int
    extra: int
    where: bool
    texts: int


DETAILS = (
    Detail(3, 4000, 6000, 1000, where=True, texts=50),
    Detail(1, 2000, 4000, 600, where=True, texts=10),
    Detail(1, 600, 1200, 200, where=False, texts=0),
)
SAME_TRACE = "(the same traceback as above)"


class Shown(NamedTuple):
    """One record, as text ready to be drawn (cleaned, cut, not escaped)."""

    kind: Kind
    level: int
    level_name: str
    logger: str
    when: str
    text: str
    trace: str
    where: str
    extras: tuple[tuple[str, str], ...]
    id: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Records left out at this place: how many, and of which kinds."""

    count: int
    kinds: tuple[tuple[Kind, int], ...]


class Kind:
    """Records that say the same. ``number``: its place in the summary, from 1."""

    def __init__(self, level: int, level_name: str, logger: str, exception: str) -> None:
        self.number = 0
        self.level, self.level_name, self.logger, self.exception = level, level_name, logger, exception
        self.template = ""
        self.texts: Counter[str] = Counter()
        self.count = 0
        self.first = self.last = 0.0

    def add(self, entry: Entry, template: str) -> None:
        """Count one more."""
        if not self.count:
            self.first = self.last = entry.created
            self.template = template
        self.first, self.last = min(self.first, entry.created), max(self.last, entry.created)
        self.count += 1
        self.texts[one_line(entry.message) or NO_TEXT] += 1

    def __repr__(self) -> str:
        return f"<Kind {self.number}: {self.count} x {self.level_name} {self.logger} {self.title!r}>"

    @property
    def title(self) -> str:
        """The text that all have, or their template, or for want of one the first text."""
        if len(self.texts) == 1 or not self.template:
            return next(iter(self.texts))
        return one_line(self.template)

    @property
    def commonest(self) -> str:
        """The text that most of them have: it names an order, a host, a file, which a template does not."""
        return self.texts.most_common(1)[0][0]

    @property
    def examples(self) -> list[tuple[str, int]]:
        """Texts with their counts, where they differ."""
        return self.texts.most_common(MOST_EXAMPLES) if len(self.texts) > 1 else []


@dataclass(frozen=True, slots=True)
class Digest:
    """Everything that both drawings need.

    ``loggers``: (name, counts by level name), the busiest first. ``others``: (kind, texts of records that are not shown
    with their counts, how many texts there are beyond those).
    """

    kinds: list[Kind]
    items: list[Shown | Gap]
    others: list[tuple[Kind, list[tuple[str, int]], int]]
    levels: list[tuple[int, str, int]]
    loggers: list[tuple[str, list[tuple[str, int]]]]
    count: int
    shown: int
    first: datetime
    last: datetime
    headline: str
    ids: str


def make(entries: Sequence[Entry], detail: Detail) -> Digest:
    """The digest of ``entries``, at least one."""
    kinds, of = _fold(entries)
    clock = _Clock(entries)
    chosen = _choose(of, detail.each)
    shown = sum(chosen)
    return Digest(
        kinds=kinds,
        items=_line_of_time(entries, of, chosen, detail, clock),
        others=_others(entries, of, chosen, detail.texts),
        levels=_levels(kinds),
        loggers=_loggers(kinds),
        count=len(entries),
        shown=shown,
        first=clock.first,
        last=clock.last,
        headline=kinds[0].commonest,
        ids=ranges(entries),
    )


def _fold(entries: Sequence[Entry]) -> tuple[list[Kind], list[Kind]]:
    """The kinds, the most severe and frequent first, and the kind of each entry."""
    found: dict[tuple[int, str, str, str], Kind] = {}
    of: list[Kind] = []
    for entry in entries:
        record = entry.record
        exception = record.exc_info[0].__qualname__ if record.exc_info and record.exc_info[0] else ""
        template = record.msg if record.args and isinstance(record.msg, str) else ""
        key = (entry.level, entry.logger, template or _NUMBERS.sub("#", entry.message), exception)
        kind = found.get(key)
        if kind is None:
            kind = found[key] = Kind(
                entry.level, one_line(str(record.levelname), 40), one_line(entry.logger, 80), exception
            )
        kind.add(entry, template)
        of.append(kind)
    kinds = sorted(found.values(), key=lambda kind: (-kind.level, -kind.count, kind.first))
    for number, kind in enumerate(kinds, 1):
        kind.number = number
    return kinds, of


def _choose(of: Sequence[Kind], each: int) -> list[bool]:
    """For each entry, whether it is shown: the first ``each`` of its kind, and the last."""
    seen: Counter[int] = Counter()
    chosen = []
    for kind in of:
        seen[kind.number] += 1
        chosen.append(seen[kind.number] <= each or seen[kind.number] == kind.count)
    return chosen


def _line_of_time(
    entries: Sequence[Entry], of: Sequence[Kind], chosen: Sequence[bool], detail: Detail, clock: _Clock
) -> list[Shown | Gap]:
    items: list[Shown | Gap] = []
    skipped: Counter[Kind] = Counter()
    traces: dict[int, str] = {}

    def close_gap() -> None:
        if skipped:
            items.append(Gap(skipped.total(), tuple(sorted(skipped.items(), key=lambda pair: pair[0].number))))
            skipped.clear()

    for entry, kind, show in zip(entries, of, chosen, strict=True):
        if show:
            close_gap()
            shown = _show(entry, kind, detail, clock)
            if shown.trace and traces.get(kind.number) == shown.trace:
                shown = shown._replace(trace=SAME_TRACE)
            else:
                traces[kind.number] = shown.trace
            items.append(shown)
        else:
            skipped[kind] += 1
    close_gap()
    return items


def _others(
    entries: Sequence[Entry], of: Sequence[Kind], chosen: Sequence[bool], most: int
) -> list[tuple[Kind, list[tuple[str, int]], int]]:
    """The texts that differ from those shown, by kind: what the arguments were is often what is looked for."""
    if not most:
        return []
    there: set[tuple[int, str]] = set()
    texts: dict[Kind, Counter[str]] = {}
    for entry, kind, show in zip(entries, of, chosen, strict=True):
        text = one_line(entry.message) or NO_TEXT
        if show:
            there.add((kind.number, text))
        else:
            texts.setdefault(kind, Counter())[text] += 1
    listed = []
    for kind in sorted(texts, key=lambda kind: kind.number):
        left = [(text, count) for text, count in texts[kind].items() if (kind.number, text) not in there]
        if left:
            listed.append((kind, left[:most], max(0, len(left) - most)))
    return listed


def _show(entry: Entry, kind: Kind, detail: Detail, clock: _Clock) -> Shown:
    record = entry.record
    stack = f"\n{record.stack_info}" if record.stack_info else ""
    place = [f"{record.pathname}:{record.lineno}" if record.pathname else "", f"in {record.funcName}"]
    who = f"{record.processName} ({record.process}), {record.threadName}"
    where = " ".join(p for p in place if p and not p.endswith("None")) + f" \u00b7 {who}"
    return Shown(
        kind=kind,
        level=entry.level,
        level_name=kind.level_name,
        logger=kind.logger,
        when=clock.precisely(entry.created),
        text=clean(clip(entry.message.strip("\n"), detail.text)) or NO_TEXT,
        trace=clean(clip((trace(entry) + stack).strip("\n"), detail.trace, head=0.25)),
        where=one_line(where, 300) if detail.where else "",
        extras=_extras(entry, detail.extra),
        id=one_line(entry.id),
    )


def _extras(entry: Entry, room: int) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for key, value in entry.extra.items():
        if room <= 0:
            pairs.append(("...", f"{len(entry.extra) - len(pairs)} more"))
            break
        try:
            text = str(value)
        except Exception as error:  # somebody's __str__
            text = f"<{type(value).__name__}: {type(error).__name__}>"
        text = clean(clip(text, min(room, 400)))
        room -= len(text) + len(str(key))
        pairs.append((one_line(str(key), 60), text))
    return tuple(pairs)


def _levels(kinds: Sequence[Kind]) -> list[tuple[int, str, int]]:
    counts: Counter[tuple[int, str]] = Counter()
    for kind in kinds:
        counts[kind.level, kind.level_name] += kind.count
    return [(level, name, count) for (level, name), count in sorted(counts.items(), reverse=True)]


def _loggers(kinds: Sequence[Kind]) -> list[tuple[str, list[tuple[str, int]]]]:
    counts: dict[str, Counter[tuple[int, str]]] = {}
    for kind in kinds:
        counts.setdefault(kind.logger, Counter())[kind.level, kind.level_name] += kind.count
    busiest = sorted(counts.items(), key=lambda pair: (-pair[1].total(), pair[0]))
    return [
        (name, [(level_name, n) for (_, level_name), n in sorted(by.items(), reverse=True)]) for name, by in busiest
    ]


def in_summary(digest: Digest) -> tuple[list[Kind], str]:
    """The kinds that the summary names, and what it says of the others ("" if there are none)."""
    named: list[Kind] = []
    single = 0
    for kind in digest.kinds:
        single += kind.count == 1
        if len(named) < MOST_KINDS and (kind.count > 1 or single <= MOST_SINGLE):
            named.append(kind)
    rest = len(digest.kinds) - len(named)
    if not rest:
        return named, ""
    records = plural(digest.count - sum(kind.count for kind in named), "record")
    return named, f"and {plural(rest, 'more kind')} of messages, {records}; see below"


# --- time ------------------------------------------------------------------------------------------------------------


class _Clock:
    """Local time; the date is left out where all is of one day."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        times = [entry.created for entry in entries]
        self.first, self.last = local(min(times)), local(max(times))
        self._one_day = self.first.date() == self.last.date()

    def precisely(self, created: float) -> str:
        """With milliseconds."""
        return local(created).strftime("%H:%M:%S.%f" if self._one_day else "%Y-%m-%d %H:%M:%S.%f")[:-3]


def local(created: float) -> datetime:
    """Local time with its zone; a time that no calendar has becomes the beginning of ours."""
    try:
        return datetime.fromtimestamp(created).astimezone()
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0).astimezone()


def zone(when: datetime) -> str:
    """Such as ``UTC+02:00``."""
    return "UTC" + when.strftime("%z")[:3] + ":" + when.strftime("%z")[3:5]


def span(digest: Digest) -> str:
    """From when to when, in which zone, how long."""
    first, last = digest.first, digest.last
    text = first.strftime("%Y-%m-%d %H:%M:%S")
    if last.replace(microsecond=0) != first.replace(microsecond=0):
        same_day = first.date() == last.date()
        text += " to " + last.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S")
    zones = zone(first) if zone(first) == zone(last) else f"{zone(first)}, {zone(last)}"
    lasted = duration((last - first).total_seconds())
    return f"{text} ({zones}{', ' + lasted if lasted else ''})"


def period(kind: Kind, digest: Digest) -> str:
    """When a kind was first and last seen."""
    one_day = digest.first.date() == digest.last.date()
    form = "%H:%M:%S" if one_day else "%Y-%m-%d %H:%M:%S"
    first, last = local(kind.first).strftime(form), local(kind.last).strftime(form)
    return f"at {first}" if first == last else f"first {first}, last {last}"


def plural(count: int, word: str) -> str:
    """``1 record``, ``2,000 records``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def duration(seconds: float) -> str:
    """In the two largest units; "" for less than a second."""
    parts = []
    left = int(seconds)
    for length, name in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= length:
            parts.append(f"{left // length} {name}")
            left %= length
    return " ".join(parts[:2])


def ranges(entries: Sequence[Entry]) -> str:
    """The ids in short: ``<uuid>-3..17, <uuid>-20``."""
    runs: list[tuple[str, int, int]] = []
    odd: list[str] = []
    for entry in entries:
        stem, _, number = entry.id.rpartition("-")
        if not re.fullmatch("[0-9]{1,19}", number) or not stem.isprintable():
            odd.append(one_line(entry.id))  # of a forged journal
        elif runs and runs[-1][0] == stem and runs[-1][2] + 1 == int(number):
            runs[-1] = (stem, runs[-1][1], int(number))
        else:
            runs.append((stem, int(number), int(number)))
    return ", ".join([f"{stem}-{a}" if a == b else f"{stem}-{a}..{b}" for stem, a, b in runs] + odd)
