"""The manual page lastwords(1), made of the commands themselves: what ``--help`` says, in the language of man(7).

Rules
-----
* Pure: from the tree of commands to text. Only the headings are written by hand, so that nothing goes stale.
* One page for all verbs: ``man lastwords`` is what people type. (click-man makes one for each command, and leaves out
  what stands below the options: the examples and the exit codes.)
* Each word is escaped: a ``-`` is one that can be copied, and no line of a help begins a request by chance.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT = (
    ("LASTWORDS_TO", "The target, where --to is not given."),
    (
        "LASTWORDS_USERNAME, LASTWORDS_PASSWORD",
        "Credentials for the target of a URL that has none; those of the environment are only sent over TLS.",
    ),
    ("NO_COLOR", "Print no colours."),
)


def page(cli: click.Group, version: str) -> str:
    """The whole page, for ``man -l -`` or a file named lastwords.1."""
    context = click.Context(cli, info_name="lastwords", **cli.context_settings)
    lines = [
        f'.TH LASTWORDS 1 "" "lastwords {_escaped(version)}" "User Commands"',
        ".SH NAME",
        r"lastwords \- " + _escaped("look after the journals of a durable logging handler"),
        ".SH SYNOPSIS",
        r".B lastwords",
        r".I VERB",
        _escaped("[OPTIONS] [JOURNAL]..."),
        ".SH DESCRIPTION",
        *_prose(cli.help),
        ".SH VERBS",
    ]
    for name in cli.list_commands(context):
        lines += _command(cli.get_command(context, name), name, context)
    lines += [".SH EXIT STATUS", *_prose(cli.epilog, drop="Exit codes:"), ".SH ENVIRONMENT"]
    for names, meaning in ENVIRONMENT:
        lines += _item(names, meaning)
    lines += [".SH SEE ALSO", _escaped("`lastwords guide` shows the manual, which comes with the package.")]
    kept = [line for before, line in pairwise(["", *lines]) if line != ".PP" or not before.startswith((".SH", ".SS"))]
    return "\n".join(kept) + "\n"


def _command(command: click.Command | None, name: str, parent: click.Context) -> Iterator[str]:
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            yield from _command(command.get_command(context, below), below, context)
        return
    usage = " ".join(command.collect_usage_pieces(context))
    yield f'.SS "{_escaped(f"{context.command_path} {usage}")}"'
    yield from _prose(command.help)
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield from _item(*record)
    yield from _prose(command.epilog)


def _item(names: str, meaning: str) -> Iterator[str]:
    """A name and what it means, hanging."""
    yield ".TP"
    yield rf"\fB{_escaped(names)}\fR"
    yield _escaped(" ".join(meaning.split()))


def _prose(text: str | None, drop: str = "") -> Iterator[str]:
    """Paragraphs as click takes them: filled, or behind a line with a backspace as they stand."""
    for paragraph in re.split(r"\n\s*\n", (text or "").strip("\n")):
        lines = paragraph.splitlines()
        verbatim = bool(lines) and lines[0].strip() == "\b"
        lines = [line.rstrip() for line in lines if line.strip() not in ("\b", drop)]
        if not lines:
            continue
        yield ".PP"
        if verbatim:
            yield from (".nf", *map(_escaped, lines), ".fi")
        else:
            yield _escaped(" ".join(line.strip() for line in lines))


def _escaped(text: str) -> str:
    """As text: backslashes, hyphens, quotes (also in the argument of a request), and what would begin a request."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    text = text.replace("'", r"\(aq").replace("`", r"\(ga").replace("^", r"\(ha").replace("~", r"\(ti")
    return r"\&" + text if text.startswith(".") else text
