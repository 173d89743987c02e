"""Everything that has a name is in the manual, on the page where one would look: knobs, names, verbs, options, codes, URLs.

``missing`` is what all of it goes through; the last test shows that it finds what is not there.
"""

import importlib
import inspect
import logging
import pathlib
import re
import tomllib

import click
import pytest

import lastwords
from lastwords import errors
from lastwords.cli import guide
from lastwords.cli.main import VERBS, cli
from lastwords.targets.urls import from_url

FOLDER = pathlib.Path(guide.FOLDER)
PAGES = {path.stem: path.read_text() for path in FOLDER.glob("*.md")}


def missing(names, *pages):
    """Those that no page has as code: alone, with arguments or a value behind it, or among others."""
    text = re.sub(r"^```.*?^```$", "", "\n".join(PAGES[page] for page in pages), flags=re.DOTALL | re.MULTILINE)
    code = " ".join(re.findall(r"`([^`]+)`", text))
    return [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", code)]


def public(cls):
    """The names that somebody may use of one of our classes, without those that it has from elsewhere."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("lastwords") and base is not Exception]
    names = {name for base in ours for name in vars(base) if not name.startswith("_")}
    if issubclass(cls, Exception):
        names |= set(inspect.signature(cls).parameters)
    return sorted(names)


def test_every_knob_is_on_the_page_of_knobs():
    """By its name, and in the signature of the API page."""
    knobs = list(inspect.signature(lastwords.DurableHandler).parameters)[2:]
    assert missing(knobs, "knobs") == [] == missing(knobs, "api")


@pytest.mark.parametrize("name", lastwords.__all__)
def test_every_public_name_is_on_the_page_of_the_api(name):
    """With all its methods and fields."""
    assert f"\n## {name}" in PAGES["api"] or f", {name}\n" in PAGES["api"]
    assert missing(public(getattr(lastwords, name)), "api") == []


def test_every_error_is_on_the_page_of_the_api_with_its_exit_code():
    """An operator sees one, a programmer the other."""
    for cls in errors.JournalError.__subclasses__():
        (row,) = [line for line in PAGES["api"].splitlines() if f"`{cls.__name__}`" in line]
        assert row.endswith(f"| {cls.exit_code} |"), row


@pytest.mark.repository
def test_every_extra_is_on_the_first_page():
    """By its name, but for what only developers need."""
    project = tomllib.loads((pathlib.Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert missing(set(project["optional-dependencies"]) - {"dev"}, "start") == []


def commands(command, path="lastwords", parent=None):
    """(its name, the command), of all verbs and those below them."""
    context = click.Context(command, info_name=path, parent=parent)
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), f"{path} {name}", context)


def test_every_option_is_on_the_page_of_the_command_line():
    """Long and short ones, and in a row that names the verb or says that several have it."""
    options = {flag for _, command in commands(cli) for parameter in command.params
               if isinstance(parameter, click.Option) for flag in (*parameter.opts, *parameter.secondary_opts)}  # fmt: skip
    assert len(options) > 40
    assert missing(sorted(options), "command-line") == []


def test_every_verb_is_in_the_manual_with_an_example():
    """Also `dead retry` and `setup cron`."""
    text = "\n".join(PAGES.values())
    names = [name for name, command in commands(cli) if not isinstance(command, click.Group)]
    assert len(names) > len(VERBS)
    assert [name for name in names if not re.search(rf"{name}\b", text)] == []


def test_every_exit_code_is_on_the_page_of_the_command_line():
    """In its table, and those of --help are the same."""
    table = PAGES["command-line"].split("## Exit codes")[1]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    told = {int(code) for code in re.findall(r"^\s*(\d+)  +\w", cli.epilog, re.MULTILINE)}
    assert listed == told >= {cls.exit_code for cls in errors.JournalError.__subclasses__()} | {0, 2, 78}


@pytest.mark.parametrize("scheme", from_url._SCHEMES)
def test_every_url_is_in_the_manual_with_its_knobs(scheme):
    """On one of the three pages about targets."""
    home = importlib.import_module(from_url._SCHEMES[scheme][0], from_url.__package__)
    knobs = getattr(home, "KNOBS", None) or home._FORMAT | {"mode": None}
    knobs = knobs.get(scheme, knobs)  # syslog has a table for each
    text = " ".join(PAGES[page] for page in ("targets", "mail", "fleet"))
    assert re.search(rf"(?<![\w+]){re.escape(scheme)}:", text)
    assert missing(sorted(knobs), "targets", "mail", "fleet") == []


def test_what_is_not_there_is_found():
    """The checks above can fail: names that do not exist, and such that only begin like one that does."""
    assert missing(["sync_levels", "no_such_knob", "sync"], "knobs") == ["sync_levels", "no_such_knob", "sync"]
    assert missing(["--dead-letters", "--warn", "-x"], "command-line") == ["--dead-letters", "--warn", "-x"]

    class Handler(lastwords.DurableHandler):
        __module__ = "lastwords.invented"

        def teleport(self):
            pass

    assert missing(public(Handler), "api") == ["teleport"]
    assert "setLevel" in dir(Handler) and "setLevel" not in public(Handler), "what is logging's is not ours to tell"
    assert issubclass(Handler, logging.Handler)
