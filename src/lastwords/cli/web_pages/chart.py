"""A bar chart as SVG, drawn here: a page must not need anything from outside."""

from __future__ import annotations

import logging
import time
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 760, 180, 52, 24, 30
MOST = 60  # bars
LEAST = 12  # as many places, so that a lone bar is no wall
SPANS = (60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)  # seconds
COLOURS = ((50, "#7a1fa2"), (40, "#c62828"), (30, "#ef8f00"), (20, "#1976d2"), (0, "#90a4ae"))  # from this level on


def buckets(first: float, last: float) -> tuple[float, int, int]:
    """Start, width in seconds and number of bars: a minute each, or as much as it takes to have no more than 60."""
    span = max(0.0, last - first)
    width = next((width for width in SPANS if span / width < MOST - 1), None) or 86400 * (1 + int(span / 86400 / MOST))
    end = last - last % width + width
    number = max(LEAST, round((end - (first - first % width)) / width))
    return end - number * width, width, number


def colour(level: int) -> str:
    """That of a level; levels in between have that of the standard one below."""
    return next(colour for least, colour in COLOURS if level >= least or least == 0)


def draw(rows: list[tuple[Any, ...]], start: float, width: int, number: int, title: str) -> str:
    """``rows``: bar, level, count."""
    bars: dict[int, dict[int, int]] = {}
    for bar, level, count in rows:
        if isinstance(bar, int) and isinstance(level, int) and 0 <= bar < number:  # else it is damaged
            bars.setdefault(bar, {})[level] = count
    top = max((sum(levels.values()) for levels in bars.values()), default=0)
    total = sum(sum(levels.values()) for levels in bars.values())
    step = (WIDTH - LEFT) / max(number, 1)
    scale = (HEIGHT - BOTTOM - TOP) / max(top, 1)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}: {total:,} in all">',
        f'<text x="0" y="14" class="title">{total:,} {escape(title)}</text>',
        *_legend({level for levels in bars.values() for level in levels}),
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{top:,}</text>',
        f'<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" text-anchor="end">0</text>',
        f'<line x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{WIDTH}" y2="{HEIGHT - BOTTOM}" stroke="#999"/>',
    ]
    for bar, levels in sorted(bars.items()):
        said = f"{_time(start + bar * width, 0)} UTC, {width // 60} min: "
        parts += _bar(LEFT + bar * step, step, levels, scale, said)
    for part in range(5):
        at = start + part * number * width / 4
        x = LEFT + part * (WIDTH - LEFT) / 4
        anchor = "start" if part == 0 else "end" if part == 4 else "middle"
        parts.append(f'<text x="{x:.0f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{_time(at, number * width)}</text>')
    return "".join([*parts, "</svg>"])


def _bar(x: float, step: float, levels: dict[int, int], scale: float, said: str) -> list[str]:
    parts, y = [], float(HEIGHT - BOTTOM)
    most_severe_first = sorted(levels.items(), reverse=True)
    said += ", ".join(f"{count:,} {logging.getLevelName(level)}" for level, count in most_severe_first)
    for level, count in most_severe_first:
        height = max(1.0, count * scale)
        y -= height
        parts.append(
            f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{max(1.0, step - 1):.1f}" height="{height:.1f}"'
            f' fill="{colour(level)}"><title>{escape(said)}</title></rect>'
        )
    return parts


def _legend(levels: set[int]) -> list[str]:
    parts, x = [], WIDTH
    for level in sorted(levels)[:8]:
        name = str(logging.getLevelName(level))
        x -= 7 * len(name) + 24
        parts.append(
            f'<rect x="{x}" y="5" width="10" height="10" fill="{colour(level)}"/>'
            f'<text x="{x + 14}" y="14">{escape(name)}</text>'
        )
    return parts


def _time(at: float, span: float) -> str:
    form = "%H:%M" if span <= 86400 else "%m-%d %H:%M"
    try:
        return time.strftime(form if span else "%Y-%m-%d %H:%M", time.gmtime(at))
    except (ValueError, OverflowError, OSError):  # a damaged row's time
        return "?"
