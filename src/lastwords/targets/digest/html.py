"""A digest as HTML for mail programs: one column, inline styles, tables only where numbers align, nothing loaded.

Everything that comes from a record or a server goes through ``escape``. Kept under Gmail's 102 kB by its caller.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .content import Gap, in_summary, period, plural, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .content import Digest, Kind, Shown

MOST_LOGGERS = 15

_SANS = "-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_CODE = f"font:12px/1.4 {_MONO}"
_CARD = "background:#fff;border:1px solid #dfe3e8;border-radius:8px;margin:0 0 14px;padding:14px 16px"
_HEADING = "font-size:13px;font-weight:600;color:#57606a;margin:20px 2px 8px"
_DIM = "color:#6a737d;font-size:12px"
_EXAMPLE = "color:#57606a;font-size:13px;padding-left:10px"
_WRAP = "white-space:pre-wrap;overflow-wrap:anywhere;word-break:break-word"

# (least level, strong colour, pale colour)
_COLOURS = (
    (50, "#8e1c56", "#fbe9f2"),
    (40, "#b42318", "#fdecea"),
    (30, "#a15c07", "#fdf3e0"),
    (20, "#1f5fa8", "#e8f1fb"),
)
_GREY = ("#57606a", "#eef0f2")


def _colours(level: int) -> tuple[str, str]:
    return next(((strong, pale) for least, strong, pale in _COLOURS if level >= least), _GREY)


def draw(digest: Digest, *, origin: str, notices: Sequence[str], footer: str) -> str:
    """The HTML part of the mail."""
    title = escape(", ".join(f"{count:,} {name}" for _, name, count in digest.levels))
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f'<meta name="color-scheme" content="light"><title>{title}</title></head>\n',
        '<body style="margin:0;padding:0;background:#f3f4f6">',
        f'<div style="max-width:760px;margin:0 auto;padding:14px 10px;font:14px/1.45 {_SANS};color:#1f2328">\n',
        _head(digest, origin),
        *(_notice(text) for text in notices),
        _summary(digest),
        _by_logger(digest),
        _records(digest),
        _others(digest),
        f'<p style="{_DIM};margin:16px 2px;overflow-wrap:anywhere">{escape(footer)}</p>\n</div></body></html>\n',
    ]
    return "".join(parts)


def _head(digest: Digest, origin: str) -> str:
    strong, _ = _colours(digest.levels[0][0])
    chips = "".join(_chip(level, f"{count:,} {name}", 17) for level, name, count in digest.levels)
    return (
        f'<div style="{_CARD};border-top:4px solid {strong}">'
        f'<div style="margin:0 0 6px">{chips}</div>'
        f'<div style="font-size:16px;font-weight:600;overflow-wrap:anywhere">{escape(origin)}</div>'
        f'<div style="color:#57606a">{escape(span(digest))}</div></div>\n'
    )


def _chip(level: int, text: str, size: int = 12) -> str:
    strong, pale = _colours(level)
    return (
        f'<span style="display:inline-block;background:{pale};color:{strong};font-size:{size}px;font-weight:600;'
        f'border-radius:4px;padding:1px 7px;margin:0 6px 3px 0;white-space:nowrap">{escape(text)}</span>'
    )


def _notice(text: str) -> str:
    return f'<div style="{_CARD};background:#fff8e1;border-color:#f0d48a;overflow-wrap:anywhere">{escape(text)}</div>\n'


def _summary(digest: Digest) -> str:
    if digest.count == 1:
        return ""
    named, rest = in_summary(digest)
    rows = "".join(_kind(kind, digest, first=not i) for i, kind in enumerate(named))
    if rest:
        rows += _row("", rest, first=False)
    return f'<div style="{_HEADING}">What happened</div>\n<div style="{_CARD};padding:4px 16px">{_table(rows)}</div>\n'


def _table(rows: str) -> str:
    style = "width:100%;border-collapse:collapse"
    return f'<table role="presentation" cellpadding="0" cellspacing="0" style="{style}">{rows}</table>'


def _row(left: str, right: str, *, first: bool) -> str:
    line = "" if first else ";border-top:1px solid #eaecef"
    return (
        f'<tr><td style="vertical-align:top;text-align:right;white-space:nowrap;padding:9px 12px 9px 0;width:1%{line}">'
        f'{left}</td><td style="vertical-align:top;padding:9px 0{line};overflow-wrap:anywhere;word-break:break-word">'
        f"{right}</td></tr>\n"
    )


def _kind(kind: Kind, digest: Digest, *, first: bool) -> str:
    strong, _ = _colours(kind.level)
    exception = f' <span style="{_DIM}">{escape(kind.exception)}</span>' if kind.exception else ""
    examples = _texts(kind.examples)
    others = len(kind.texts) - len(kind.examples)
    if kind.examples and others:
        examples += f'<div style="{_DIM};padding-left:10px">and {plural(others, "other text")}</div>'
    body = (
        f'{_chip(kind.level, kind.level_name)}<span style="color:#57606a">{escape(kind.logger)}</span>{exception}'
        f'<div style="font-weight:600">{escape(kind.title)}</div>{examples}'
        f'<div style="{_DIM}">[{kind.number}] {escape(period(kind, digest))}</div>'
    )
    return _row(f'<b style="font-size:16px;color:{strong}">{kind.count:,}&nbsp;&times;</b>', body, first=first)


def _texts(texts: Sequence[tuple[str, int]]) -> str:
    return "".join(
        f'<div style="{_EXAMPLE}">{f"{n:,} &times;" if n > 1 else "&ndash;"} {escape(text)}</div>' for text, n in texts
    )


def _by_logger(digest: Digest) -> str:
    if len(digest.loggers) < 2:
        return ""
    rows: list[str] = []
    for name, counts in digest.loggers[:MOST_LOGGERS]:
        by = ", ".join(f"{n:,} {escape(level)}" for level, n in counts)
        rows.append(
            _row(
                f"<b>{sum(n for _, n in counts):,}</b>",
                f'{escape(name)} <span style="{_DIM}">{by}</span>',
                first=not rows,
            )
        )
    rest = digest.loggers[MOST_LOGGERS:]
    if rest:
        total = sum(n for _, counts in rest for _, n in counts)
        rows.append(_row(f"<b>{total:,}</b>", f"{len(rest)} other loggers", first=False))
    table = _table("".join(rows)).replace("padding:9px", "padding:4px")
    return f'<div style="{_HEADING}">By logger</div>\n<div style="{_CARD};padding:6px 16px">{table}</div>\n'


def _records(digest: Digest) -> str:
    heading = "Records" if digest.count > 1 else "Record"
    if digest.shown < digest.count:
        heading += f" ({digest.shown:,} of {digest.count:,} in full, the others counted where they were)"
    items = "".join(_gap(item) if isinstance(item, Gap) else _record(item, digest) for item in digest.items)
    return f'<div style="{_HEADING}">{heading}</div>\n{items}'


def _gap(gap: Gap) -> str:
    of = ", ".join(f"{count:,} of [{kind.number}]" for kind, count in gap.kinds[:8])
    more = f" and {len(gap.kinds) - 8} other kinds" if len(gap.kinds) > 8 else ""
    dots = "&middot;&middot;&middot;"
    style = f"{_DIM};text-align:center;margin:0 0 14px"
    return f'<div style="{style}">{dots} {gap.count:,} more: {of}{more} {dots}</div>\n'


def _record(shown: Shown, digest: Digest) -> str:
    strong, _ = _colours(shown.level)
    number = f"[{shown.kind.number}] " if digest.count > 1 else ""
    like = f" &middot; {shown.kind.count:,} like this" if shown.kind.count > 1 else ""
    parts = [
        f'<div style="{_CARD};border-left:4px solid {strong};padding:10px 14px">',
        f'<div style="{_DIM}">{number}<span style="color:#1f2328">{escape(shown.when)}</span> ',
        f'<b style="color:{strong}">{escape(shown.level_name)}</b> {escape(shown.logger)}{like}</div>',
        f'<div style="{_WRAP};font-weight:600;margin:3px 0">{escape(shown.text)}</div>',
    ]
    if shown.trace:
        parts.append(
            f'<pre style="{_WRAP};{_CODE};background:#f6f8fa;border-radius:6px;margin:6px 0;padding:8px 10px">'
            f"{escape(shown.trace)}</pre>"
        )
    if shown.extras:
        pairs = "".join(
            f'<div><span style="color:#6a737d">{escape(k)}</span> = {escape(v)}</div>' for k, v in shown.extras
        )
        parts.append(f'<div style="{_CODE};{_WRAP};margin:4px 0">{pairs}</div>')
    where = f"{escape(shown.where)}<br>" if shown.where else ""
    parts.append(f'<div style="{_DIM};overflow-wrap:anywhere">{where}id {escape(shown.id)}</div></div>\n')
    return "".join(parts)


def _others(digest: Digest) -> str:
    if not digest.others:
        return ""
    rows = []
    for kind, texts, more in digest.others:
        rest = f'<div style="{_DIM};padding-left:10px">and {plural(more, "other text")}</div>' if more else ""
        rows.append(
            f'<div style="padding:5px 0">[{kind.number}] {_chip(kind.level, kind.level_name)}{escape(kind.logger)}'
            f"{_texts(texts)}{rest}</div>"
        )
    heading = f'<div style="{_HEADING}">What else the records said that are not shown</div>'
    return f'{heading}\n<div style="{_CARD};overflow-wrap:anywhere">{"".join(rows)}</div>\n'
