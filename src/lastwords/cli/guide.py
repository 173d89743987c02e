"""``lastwords guide``: the manual, shipped with the package, so that it is there on the server that is on fire."""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import os
import sys

import click

from . import output

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guide")
CONTENTS = "README"  # the page that lists the others

EXAMPLES = """
lastwords guide
lastwords guide operations
lastwords guide django | less
lastwords guide --path targets
"""


def topics() -> list[str]:
    """The names of all pages, in alphabetical order."""
    return sorted(name[:-3] for name in os.listdir(FOLDER) if name.endswith(".md") and name[:-3] != CONTENTS)


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
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if sys.stdout is not None and sys.stdout.isatty():
        click.echo_via_pager(text)
    else:
        output.echo(text, nl=False)


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
