"""What somebody who writes log messages, or can write to the current folder, does to whoever runs a verb."""

import os
import pty
import subprocess
import sys

import pytest

from cli.tools import log_to, run, spawn, sql

EVIL = "a\x1b[2J\x1b]0;owned\x07b\x9b31mc\u202ed\u2066e\x08f"


def on_a_terminal(*args):
    """What a verb writes to a terminal, and its exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "lastwords", *map(str, args)], stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 65536)
        except OSError:  # EIO: nobody has the other end any more
            break
    os.close(ours)
    return process.wait(30), said.decode()


def acts(said):
    """The characters in ``said`` that a terminal obeys, or that hide what is there."""
    return {c for c in said if c in EVIL and not c.isalnum() and c not in "[];"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb",
    [
        ("replay", "--to", "stdout:"),
        ("replay", "--to", "stderr:"),
        ("replay", "--to", "stdout:?format=json"),
        ("list", "--traceback"),
        ("list", "--format", "%(message)s"),
        ("list", "--json"),
        ("dead", "list"),
    ],
    ids=" ".join,
)
def test_what_a_record_says_to_a_terminal_is_shown_and_not_obeyed(tmp_path, verb):
    """Escape sequences, C1 controls and changes of the direction of writing; in a pipe they are passed on."""
    path = log_to(tmp_path / "j.db", 2, text=EVIL + " %d", logger=EVIL)
    said = on_a_terminal(*verb, path)[1]
    assert acts(said) == set(), said
    if verb[0] == "replay":
        assert "031mc" in said.replace("x9b", "0").replace("u009b", "0"), "negative control: the record was printed"
        piped = spawn(*verb, path)
        assert "\x9b" in piped.out + piped.err or "\\u009b" in piped.out + piped.err


@pytest.mark.slow
def test_a_forged_id_in_a_complaint_is_shown(tmp_path):
    """`dead retry` names the ids that a seq stands for; wrong usage quotes what was typed."""
    path = log_to(tmp_path / "j.db", 2)
    columns = "(id, seq, created, level, payload, checksum, error, traceback, attempts, first_failed_at, buried_at)"
    for number in range(2):
        row = f"('{EVIL}{number}', 5, 1.0, 20, '{{}}', 0, 'x', 'x', 1, 1.0, 1.0)"
        sql(path, f"INSERT INTO dead_letters {columns} VALUES {row}")
    for command in (("dead", "retry", path, "5"), ("dead", "retry", path, EVIL), ("list", "--level", EVIL, path)):
        code, said = on_a_terminal(*command)
        assert code in {2, 66} and acts(said) == set(), said
    result = run("dead", "retry", path, "5")
    assert "\x1b" not in result.err and "\\x1b" in result.err


@pytest.mark.parametrize(
    "verb", [("status",), ("status", "--check"), ("status", "--format", "prometheus")], ids=" ".join
)
def test_the_name_of_a_file_is_shown(tmp_path, verb):
    """In /tmp anybody can make one that a pattern matches."""
    log_to(tmp_path / f"{EVIL}.db", 1)
    code, said = on_a_terminal(*verb, tmp_path / "*.db")
    assert code in {0, 1, 2} and acts(said) == set(), said


# --- the current folder ---------------------------------------------------------------------------------

TRAPS = (
    "email sqlite_utils tenacity urllib3 click msgspec smtplib sqlite3 json socket pysqlite3 sqlean tornado brotli"
    " zstandard h2 socks hiredis uvloop orjson simplejson colorama readline"
).split()


@pytest.fixture
def trapped(tmp_path):
    """A folder full of modules that note that they were run."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in TRAPS:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'a').write({name!r} + ' ')\n")
    return folder


def sprung(folder):
    file = folder.parent / "sprung"
    return file.read_text() if file.exists() else ""


def script(*args, cwd):
    """A verb as cron runs it."""
    command = os.path.join(os.path.dirname(sys.executable), "lastwords")
    return subprocess.run([command, *map(str, args)], capture_output=True, text=True, cwd=cwd, check=False)


def module(*args, cwd):
    """A verb as `python -m lastwords`."""
    command = [sys.executable, "-m", "lastwords", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("start", [script, module])
def test_no_module_of_the_current_folder_runs_in_place_of_a_library(journal, trapped, start):
    """Not with --config, not with --to, not with python -m: whoever can write there would run code as cron."""
    config = trapped.parent / "logging.toml"
    config.write_text(
        'version = 1\n[handlers.app]\nclass = "lastwords.DurableHandler"\n'
        f'journal = "{journal()}"\ntarget = "smtp://127.0.0.1:9/?to=a@example.com"\n'
    )
    (trapped / "mine.py").write_text("import logging\nhandler = logging.NullHandler()\ndef deliver(entries): pass\n")
    assert start("flush", "--config", config, "--timeout", "1", cwd=trapped).returncode == 75
    assert start("status", journal(), cwd=trapped).returncode == 0
    done = start("flush", "--to", "mine:deliver", journal("other.db"), cwd=trapped)
    assert done.returncode == 0, done.stderr
    assert sprung(trapped) == ""


def test_another_program_keeps_its_current_folder(tmp_path):
    """Negative control: only `python -m lastwords` gives it up."""
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "__init__.py").write_text("import lastwords\n")
    (tmp_path / "program" / "__main__.py").write_text("import beside\n")
    (tmp_path / "beside.py").write_text("print('found')\n")
    command = [sys.executable, "-m", "program", "lastwords"]
    assert subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stdout == "found\n"


@pytest.mark.slow
def test_a_relative_journal_of_a_configuration_that_is_not_there_is_said(tmp_path, sink):
    """Cron runs in another folder than the service: nothing and success would hide what is stuck."""
    config = tmp_path / "logging.toml"
    config.write_text(
        f'version = 1\n[handlers.app]\nclass = "lastwords.DurableHandler"\njournal = "app.db"\ntarget = "file:{sink.file}"\n'
    )
    result = run("flush", "--config", config)
    assert result.code == 78 and "relative" in result.err and str(tmp_path / "app.db") in result.err
    log_to(tmp_path / "app.db", 3)
    assert run("flush", "--config", config).code == 0
    assert len(sink.lines()) == 3
