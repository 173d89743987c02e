"""The manual cannot rot: its code runs, and its commands parse.

Conventions of its pages: a block that begins with ```python runs, in order with the others of its page, in a folder of
its own. A block of any language with a file name behind it (```python settings.py) is written there first; what is then
done with those files is in guide_programs.py. A
```console block holds commands behind `$ `, of which those of ours are parsed, not run.
"""

import contextlib
import pathlib
import re
import shlex
import subprocess
import sys

import click
import pytest

from lastwords.cli import guide
from lastwords.cli.main import cli
from project.guide_programs import END, HELPERS, PROGRAMS

FOLDER = pathlib.Path(guide.FOLDER)
PAGES = sorted(FOLDER.glob("*.md"))
BLOCK = re.compile(r"^```(\w+)[ \t]*([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(text, language):
    return [(name.strip(), body) for kind, name, body in BLOCK.findall(text) if kind == language]


def has_code(path):
    return bool(blocks(path.read_text(), "python"))


@pytest.mark.slow
@pytest.mark.parametrize("path", list(filter(has_code, PAGES)), ids=lambda p: p.stem)
def test_the_code_of_a_page_runs(tmp_path, path):
    """As somebody would paste it, in one program a page; targets that are not there are no reason to fail."""
    text = path.read_text()
    needed, more = PROGRAMS.get(path.stem, ("", ""))
    for package in " ".join([needed, *re.findall(r"<!-- needs: (.*?) -->", text)]).split():
        pytest.importorskip(package)
    program = [body for name, body in blocks(text, "python") if not name]
    for language, name, body in BLOCK.findall(text):
        if name.strip():
            (tmp_path / name.strip()).write_text(body)
            if language == "python":
                compile(body, f"{path.name}: {name}", "exec")
    assert program or more, "nothing on this page is run; see guide_programs.py"
    (tmp_path / "page.py").write_text("\n".join([*program, HELPERS + more if more else "", END]))
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert more or "Traceback" not in done.stderr, done.stderr[-3000:]  # a service shows those that it logs


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_the_commands_of_a_page_parse(path):
    """Verbs and options exist."""
    for _, body in blocks(path.read_text(), "console"):
        for line in body.splitlines():
            if line.startswith("$ lastwords "):
                words = shlex.split(line[2:].split(" | ")[0].split(" > ")[0], comments=True)
                parse(words[1:])


def parse(words):
    """Raises click.UsageError for what the command line would not take."""
    if words[0] in {"--help", "--version"}:
        return
    command, rest = cli.get_command(click.Context(cli), words[0]), words[1:]
    assert command is not None, words
    context = click.Context(command, info_name=words[0])
    if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        command, rest = command.get_command(context, rest[0]), rest[1:]
        assert command is not None, words
    with contextlib.suppress(click.exceptions.Exit):  # --help
        command.make_context(words[0], rest, resilient_parsing=False)


def test_a_wrong_option_would_be_found():
    """The check above can fail."""
    with pytest.raises(click.UsageError):
        parse(["flush", "--no-such-thing", "j.db"])


def test_the_contents_name_every_page():
    """And no other."""
    text = (FOLDER / "README.md").read_text()
    assert sorted(re.findall(r"\((\S+)\.md\)", text)) == guide.topics()


def test_links_between_pages_lead_somewhere():
    """Also where they are given as a command."""
    for path in PAGES:
        for topic in re.findall(r"`lastwords guide ([a-z-]+)`", path.read_text()):
            assert topic in guide.topics(), (path.name, topic)


def test_it_reads_a_page():
    """Whole, as Markdown, into a pipe."""
    done = subprocess.run(
        [sys.executable, "-m", "lastwords", "guide", "start"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == (FOLDER / "start.md").read_text()


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_fits_a_terminal_and_says_the_same(path):
    """No word is lost, no line is wider than 80 columns but code, headings, and words that are; code is untouched."""
    text = path.read_text()
    shown = guide.filled(text, 80)
    prose = re.sub(r"^```.*?^```$", "", shown, flags=re.DOTALL | re.MULTILINE)
    wide = [line for line in prose.splitlines() if len(line) > 80 and not line.startswith(("#", "    ", "<!--", "!["))]
    assert [line for line in wide if " " in line.strip().removeprefix("- ")] == []
    assert BLOCK.findall(shown) == BLOCK.findall(text)
    words = [re.sub(r"[\s|-]+", "", re.sub(r"^[ |:-]+$", "", whole, flags=re.MULTILINE)) for whole in (text, shown)]
    assert words[0] == words[1]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_begins_with_a_sentence_that_says_what_it_is_for(path):
    """Below its title, before any heading, table, list or code."""
    title, blank, sentence = path.read_text().splitlines()[:3]
    assert title.startswith("# ") and blank == "" and re.match(r"[A-Z`*]", sentence), sentence


def test_a_page_that_is_not_there_is_a_usage_error_that_helps():
    """With what is near."""
    done = subprocess.run(
        [sys.executable, "-m", "lastwords", "guide", "strat"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "did you mean start" in done.stderr


def test_a_reader_that_goes_away_is_no_traceback():
    """`lastwords guide start | head -1`."""
    command = f"{shlex.quote(sys.executable)} -m lastwords guide start | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout == "# Start\n" and done.stderr == ""
