"""README cannot rot: its blocks run, and every knob, verb and exit code is in it."""

import logging
import logging.config
import pathlib
import re
import sqlite3
import tomllib
import warnings

import pytest

import conftest
import lastwords
from lastwords import DurableHandler, errors
from lastwords.journal.store import LOCK_TIMEOUT

README = (pathlib.Path(__file__).parent.parent.parent / "README.md").read_text()


TARGETS = pathlib.Path(lastwords.__file__).parent / "guide" / "targets.md"


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(autouse=True)
def restored_root():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)


def test_the_quick_start_runs(tmp_path, free_port):
    """With the path of this test's folder, and a port where nobody listens."""
    code = (
        blocks("python")[0]
        .replace('"mail.db"', repr(str(tmp_path / "mail.db")))
        .replace('"localhost"', f'("127.0.0.1", {free_port})')
    )
    exec(compile(code, "README", "exec"), {})
    with sqlite3.connect(tmp_path / "mail.db") as conn:
        assert "on the disk now" in conn.execute("SELECT message FROM records").fetchone()[0]
    for handler in logging.getLogger().handlers:
        if isinstance(handler, DurableHandler):
            handler._engine.drain_timeout = 0.1


@pytest.fixture
def free_port():
    return conftest.free_port()


def test_the_toml_configures(tmp_path, free_port):
    """As dictConfig reads it."""
    text = (
        blocks("toml")[0].replace("/var/lib/app", str(tmp_path)).replace('"localhost", 25', f'"127.0.0.1", {free_port}')
    )
    logging.config.dictConfig({**tomllib.loads(text), "disable_existing_loggers": False})
    (handler,) = [h for h in logging.getLogger().handlers if isinstance(h, DurableHandler)]
    handler._engine.drain_timeout = 0.1
    assert handler.level == logging.WARNING
    assert "SMTPHandler" in repr(handler)


def test_the_target_of_thirty_lines_works(tmp_path, monkeypatch):
    """It takes each entry once, and buries the ones that are too long."""
    monkeypatch.chdir(tmp_path)
    names = {}
    (code,) = (block for block in blocks("python", TARGETS.read_text()) if "audit" in block)
    assert len(code.splitlines()) <= 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(code, "README", "exec"), names)
    handler = names["handler"]
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("one")
    log.info("x" * 20_000)
    log.info("two")
    assert handler.drain(60)
    with sqlite3.connect("audit.db") as db:
        assert [text for (text,) in db.execute("SELECT text FROM audit ORDER BY at")] == ["one", "two"]
    assert handler.stats().dead == 1
    handler.close()


def test_every_verb_is_in_readme():
    """As the command line knows them."""
    from lastwords.cli.main import VERBS

    for verb in VERBS:
        assert f"lastwords {verb}" in README, verb


def test_every_exit_code_is_in_readme():
    """Those of the errors, too."""
    paragraph = README.split("Exit codes:")[1].split("\n\n")[0]
    codes = {cls.exit_code for cls in errors.JournalError.__subclasses__()} | {0, 2, errors.JournalError.exit_code}
    for code in codes:
        assert re.search(rf"\b{code} ", paragraph), code


def test_the_lock_timeout_is_the_stated_one():
    """The promise names it."""
    assert f"lock timeout ({LOCK_TIMEOUT:g} s)" in README


def test_the_ends_matrix_names_the_ends_there_are_and_all_passed():
    """It was made by tools/_lib/ends_matrix.py from the tests' own results."""
    from faults import ends_groups, test_ends

    names = [name for group in ends_groups.GROUPS.values() for name in group]
    assert sorted(names) == sorted([*test_ends.ENDS, *test_ends.FORKS, "spawn", "forkserver"])
    table = README.split("<!-- ends:")[1].split("<!-- /ends -->")[0]
    for group, members in ends_groups.GROUPS.items():
        (row,) = [line for line in table.splitlines() if line.startswith(f"| **{group}**")]
        assert "; ".join(members) in row
        assert row.count(f"{len(members)} of {len(members)}") == 3


def test_readme_is_short_and_starts_with_the_two_commands():
    """As long as somebody reads."""
    lines = README.splitlines()
    assert len(lines) <= 140
    assert lines[2].strip().startswith("tools/demo")
    assert lines[3].strip().startswith("tools/test")
