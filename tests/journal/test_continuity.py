"""What is missing of a journal at rest is known, counted and said once; what is not known is not said."""

import contextlib
import logging
import os
import shutil
import subprocess

import pytest

from journals import pending
from lastwords import DurableHandler, Journal
from lastwords.cli import doctor_checks, status
from lastwords.journal import continuity
from lastwords.journal.line import Line

LOG = """
import logging, os, sys, time
from lastwords import DurableHandler
path, level, count = sys.argv[1:]
handler = DurableHandler(None, path, sync_interval=0.05)
log = logging.Logger("x"); log.addHandler(handler)
for i in range(int(count)): log.log(int(level), "m%d", i)
until = time.monotonic() + 20
while handler._engine.committer.dirty or handler._engine.keeper._chores.unseen:
    assert time.monotonic() < until
    time.sleep(0.01)
handler.flush()
os._exit(0)
"""


def counted(path):
    with Line.open(path) as journal:
        return journal.get_meta("missing")


@pytest.mark.parametrize("level", [20, 40], ids=["synced by the keeper", "synced by callers"])
def test_a_wal_removed_at_rest_after_a_kill_is_said_with_how_many_it_had(children, tmp_path, capsys, level):
    """At least: the note may be older than what was committed."""
    path = str(tmp_path / "j.db")
    pending(path, 5)
    children.run(LOG, path, level, 30)
    os.unlink(path + "-wal")
    assert status.read(path)["missing"] == 30
    assert [f.verdict for f in doctor_checks.examine(path, quick=True) if f.check == "continuity"] == ["damage"]
    pending(path, 1)
    assert "at least 30 acknowledged records are missing (30 of them undelivered)" in capsys.readouterr().err
    assert counted(path) == "30"
    assert [f.verdict for f in doctor_checks.examine(path, quick=True) if f.check == "continuity"] == ["warning"]


def test_a_copy_put_in_its_place_is_said_once_with_what_was_not_delivered(tmp_path, capsys):
    """All were at rest, so the number is exact. Control: nothing is said as long as nothing was put there."""
    path = str(tmp_path / "j.db")
    pending(path, 3)
    shutil.copyfile(path, tmp_path / "backup")
    pending(path, 10)
    with Line.open(path) as journal:
        journal.settle(journal.cursor(), 6, 6)
    assert capsys.readouterr().err == ""
    assert status.read(path)["missing"] == 0
    shutil.copyfile(tmp_path / "backup", path)
    for _ in range(2):
        pending(path, 1)
    said = capsys.readouterr().err
    assert said.count("missing") == 1
    assert ": 10 acknowledged records are missing (7 of them undelivered)" in said
    assert counted(path) == "10"
    state = status.read(path)
    assert (state["missing"], state["pending"]) == (10, 5)
    assert state["missing_at"]


def test_a_handler_that_is_logged_to_after_a_copy_was_put_in_its_place_gives_no_id_twice(tmp_path, capsys):
    """In the process that had it open, and knows its epoch: the file ends earlier than it did."""
    path = str(tmp_path / "j.db")
    handler = DurableHandler(None, path)
    log = logging.Logger("x")
    log.addHandler(handler)
    ids = {}

    def log_and_close(text):
        log.info(text)
        handler.close()
        shutil.copyfile(path, tmp_path / "copy")  # who opens the file itself begins an epoch
        with Journal(tmp_path / "copy") as journal:
            for entry in journal.entries():
                assert ids.setdefault(entry.id, entry.message) == entry.message

    log_and_close("a")
    shutil.copyfile(path, tmp_path / "backup")
    log_and_close("b")
    shutil.copyfile(tmp_path / "backup", path)
    log_and_close("c")
    assert sorted(ids.values()) == ["a", "b", "c"]
    assert "1 acknowledged record is missing" in capsys.readouterr().err


def empty(path, note):
    return b""


def torn(path, note):
    return note[:40] + bytes([note[40] ^ 1]) + note[41:]


def short(path, note):
    return note[:-20]


def of_another_file(path, note):
    os.rename(path + ".commit", path + ".before")  # not removed: its inode would be used again
    return note


@pytest.mark.parametrize("change", [empty, torn, short, of_another_file])
def test_a_note_that_is_not_certain_says_nothing(tmp_path, capsys, change):
    """Torn by a kill, of an older version, or copied along with a running journal."""
    path = str(tmp_path / "j.db")
    pending(path, 1)
    shutil.copyfile(path, tmp_path / "backup")
    pending(path, 1)
    shutil.copyfile(tmp_path / "backup", path)
    with open(path + ".commit", "rb") as file:
        note = file.read()
    assert len(note) == continuity.SIZE
    changed = change(path, note)
    with open(path + ".commit", "wb") as file:
        file.write(changed)
    pending(path, 1)
    assert capsys.readouterr().err == ""
    assert counted(path) is None


def test_another_journal_at_the_path_is_missing_nothing(tmp_path, capsys):
    """It was removed at rest, but for the .commit, and a service makes it anew."""
    path = str(tmp_path / "j.db")
    pending(path, 5)
    os.unlink(path)
    pending(path, 1)
    assert capsys.readouterr().err == ""
    assert counted(path) is None


def test_what_is_on_its_way_from_a_file_that_was_replaced_is_not_missing(tmp_path, capsys, poll):
    """A copy is moved over a journal in use: what was pending is moved into it, and that is what is said."""
    path = str(tmp_path / "j.db")
    pending(path, 3)
    shutil.copyfile(path, tmp_path / "backup")
    handler = DurableHandler(None, path)
    log = logging.Logger("x")
    log.addHandler(handler)
    for i in range(5):
        log.info("late %d", i)
    handler.flush()
    os.rename(tmp_path / "backup", path)
    handler.flush()
    handler.close()
    said = capsys.readouterr().err
    assert "pending records were copied" in said
    assert "missing" not in said
    pending(path, 1)
    assert capsys.readouterr().err == ""


def test_a_note_that_cannot_be_written_is_no_trouble(tmp_path, monkeypatch, capsys):
    """The disk is full: less is known."""

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    path = str(tmp_path / "j.db")
    pending(path, 5)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_processes_that_log_at_once_miss_nothing(children, tmp_path):
    """Each notes what it sees, and opens while others commit."""
    path = str(tmp_path / "j.db")
    many = [children.start(LOG, path, 20, 300) for _ in range(3)]
    for child in many:
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert child.communicate(timeout=120)[1] == b""
    assert counted(path) is None
