"""``lastwords guide``: the manual, shipped with the package, so that it is there on the server that is on fire.

Into a pipe or a file a page goes as it is: Markdown. On a terminal it is made to fit; code stays as it
is, to be copied (for which reason rich does not render it: it would break its lines).
"""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

import click

from . import output

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guide")  # may be in a zipapp
WIDEST = 100  # columns: longer lines are hard to read
CONTENTS = "README"  # the page that lists the others

EXAMPLES = """
lastwords guide
lastwords guide operations
lastwords guide django | less
lastwords guide --path targets
"""


def _folder() -> Traversable:
    """The pages, also those of a zipapp, which have a path and are no files."""
    from importlib import resources

    return resources.files("lastwords").joinpath("guide")


def topics() -> list[str]:
    """The names of all pages, in alphabetical order."""
    names = [page.name for page in _folder().iterdir()]
    return sorted(name[:-3] for name in names if name.endswith(".md") and name[:-3] != CONTENTS)


def page(topic: str) -> str:
    """The path of a page. Raises click.UsageError that names what is near."""
    name = topic.lower().removesuffix(".md").replace("_", "-").replace(" ", "-")
    if name in topics():
        return os.path.join(FOLDER, name + ".md")
    import difflib

    near = difflib.get_close_matches(name, topics(), 3) or [other for other in topics() if name in other]
    hint = f"did you mean {', '.join(near)}?" if near else "see `lastwords guide` for what there is"
    raise click.UsageError(f"the manual has no page {output.plain(topic)!r}; {hint}")


def _show(path: str) -> None:
    text = _folder().joinpath(os.path.basename(path)).read_text(encoding="utf-8")
    if sys.stdout is not None and sys.stdout.isatty():
        import shutil

        width = max(20, min(WIDEST, shutil.get_terminal_size().columns))
        click.echo_via_pager(filled(text, width))
    else:
        output.echo(text, nl=False)


def filled(text: str, width: int) -> str:
    """Markdown to be read at ``width`` columns: paragraphs, items and wide tables are filled, code is not."""
    done: list[str] = []
    block: list[str] = []
    code = False
    for line in [*text.splitlines(), ""]:
        fence = line.startswith("```")
        as_it_is = code or fence or not line.strip() or line.startswith(_AS_IT_IS)
        row = line.startswith("|")
        if block and (as_it_is or _ITEM.match(line) or row != block[0].startswith("|")):
            done += _table(block, width) if block[0].startswith("|") else _fill(block, width)
            block = []
        if as_it_is:
            done.append(line)
        else:
            block.append(line)
        code ^= fence
    return "\n".join(done)


_AS_IT_IS = ("#", "    ", "<!--", "![")
_ITEM = re.compile(r"- |\d+\. ")


def _fill(lines: list[str], width: int) -> list[str]:
    import textwrap

    item = _ITEM.match(lines[0])
    hanging = " " * (item.end() if item else 0)
    text = " ".join(line.strip() for line in lines)
    return textwrap.wrap(text, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)


def _table(rows: list[str], width: int) -> list[str]:
    """As it is, if it fits; else an item for each row, without the ruler."""
    if max(map(len, rows)) <= width:
        return rows
    done = []
    for row in rows[:1] + rows[2:]:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        done += _fill(["- " + " | ".join(cell for cell in cells if cell)], width)
    return done


@click.command(epilog=output.examples(EXAMPLES))
@click.argument("topic", required=False)
@click.option("--path", "as_path", is_flag=True, help="Print where the page is, instead of what it says.")
def command(*, topic: str | None, as_path: bool) -> None:
    """Read the manual: what there is, or the page about TOPIC.

    The pages are Markdown and come with the package: no network is needed.
    """
    path = os.path.join(FOLDER, CONTENTS + ".md") if topic is None else page(topic)
    if as_path:
        output.echo(path)
    else:
        _show(path)
