"""Where journals lie: folders that cannot be read, a current folder that was deleted, a disk that is full."""

import os
import sqlite3
import subprocess
import sys

import pytest

from cli.tools import as_nobody, counts, finish, log_to, run
from lastwords.errors import JournalBusy, JournalError
from lastwords.journal.explain import explain

VERBS = (
    ("status",),
    ("list",),
    ("doctor",),
    ("prune",),
    ("dead", "list"),
    ("dead", "retry", "--all"),
    ("flush", "--to", "logging:NullHandler"),
    ("replay", "--to", "logging:NullHandler"),
)


# --- patterns ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0o700, 0o711, 0o744], ids=oct)
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_pattern_in_a_folder_that_cannot_be_read_is_77(public, verb, mode):
    """Nothing and success would mean that nothing is stuck there, which nobody can know."""
    secret = public / "sec"
    secret.mkdir()
    log_to(secret / "j.db")
    secret.chmod(mode if os.geteuid() == 0 else 0o111)
    try:
        result = as_nobody(*verb, secret / "*.db")
    finally:
        secret.chmod(0o755)
    assert result.code == 77, result
    assert result.err.count("\n") == 1 and str(secret) in result.err
    assert result.out == "" or verb[0] == "status"


@pytest.mark.slow
def test_a_pattern_whose_folders_cannot_be_read_is_77_unless_others_match(public):
    """`*/j.db`: a folder of another service beside ours is none of our business; if there is nothing else, it is."""
    ours, theirs = public / "ours", public / "theirs"
    ours.mkdir()
    theirs.mkdir()
    path = log_to(ours / "j.db", mode=0o644)
    theirs.chmod(0o700 if os.geteuid() == 0 else 0)
    try:
        both = as_nobody("status", public / "*" / "*.db")
        deep = as_nobody("status", public / "theirs" / "**" / "*.db")
        above = as_nobody("status", theirs / "deeper" / "*.db")
        os.unlink(path)
        none = as_nobody("status", public / "*" / "*.db")
    finally:
        theirs.chmod(0o755)
    assert both.code == 0 and path in both.out
    assert (deep.code, above.code, none.code) == (77, 77, 77)
    assert str(theirs) in none.err


@pytest.mark.slow
def test_the_other_journals_are_worked_on_beside_a_pattern_that_cannot_be_read(public):
    """It counts as one journal that cannot be used, as a plain path would."""
    secret, path = public / "sec", log_to(public / "j.db", mode=0o644)
    secret.mkdir(mode=0o700)
    if os.geteuid() != 0:
        secret.chmod(0)
    try:
        result = as_nobody("list", secret / "*.db"), as_nobody("status", path, secret / "*.db")
    finally:
        secret.chmod(0o755)
    assert [one.code for one in result] == [77, 77]
    assert "j.db " in result[1].out


@pytest.mark.slow
def test_a_pattern_that_matches_nothing_in_a_readable_folder_is_quiet(public):
    """Negative control: it is the permission that is said, not the emptiness; nor is a folder that is not there yet."""
    (public / "there").mkdir()
    (public / "there").chmod(0o755)
    for pattern in (public / "there" / "*.db", public / "not yet" / "*.db", public / "*" / "?.db"):
        for verb in (("status",), ("flush", "--to", "logging:NullHandler")):
            result = as_nobody(*verb, pattern)
            assert (result.code, result.out, result.err) == (0, "", ""), (verb, pattern)


def test_a_check_of_nothing_is_unknown(tmp_path, journal):
    """A monitor whose pattern is mistyped must not say OK for ever."""
    for pattern in ("/nope/*.db", str(tmp_path / "nope*.db")):
        result = run("status", "--check", pattern)
        assert (result.code, result.out) == (3, "LASTWORDS UNKNOWN - no journal matches\n")
    journal("yes.db")
    assert run("status", "--check", str(tmp_path / "y*.db")).code == 0


# --- the current folder -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "says"),
    [
        (("status", "x.db"), "x.db: the current folder no longer exists"),
        (("status", "*.db"), "*.db: the current folder no longer exists"),
        (("list", "x.db"), "the current folder no longer exists"),
        (("doctor", "x.db"), "the current folder no longer exists"),
        (("prune", "x.db"), "the current folder no longer exists"),
        (("flush", "--to", "nomod:x", "ABS"), "No module named 'nomod' (the current folder no longer exists)"),
        (("flush", "--to", "file:x.log", "ABS"), "the current folder no longer exists"),
        (("flush", "--to", "https://h/?cafile=x", "ABS"), "the current folder no longer exists"),
        (("flush", "--config", "x.toml"), "--config x.toml: No such file"),
        (("flush", "--config", "nomod:x"), "the current folder no longer exists"),
        (("status", "--output", "y", "ABS"), "--output y: No such file"),
    ],
)
def test_a_current_folder_that_was_deleted_is_one_line(journal, tmp_path, verb, says):
    """A shell is often left in one. What is relative cannot be found, and that is said."""
    result = _from_a_deleted_folder(tmp_path, *(journal() if word == "ABS" else word for word in verb))
    assert result.code == 78, result
    assert result.err.count("\n") == 1 and says in result.err
    assert result.err.startswith("lastwords: ")


@pytest.mark.slow
def test_from_a_deleted_folder_absolute_paths_work(journal, tmp_path):
    """Negative control: all that needs no current folder goes on without one."""
    path = journal()
    assert _from_a_deleted_folder(tmp_path, "status", path).code == 0
    result = _from_a_deleted_folder(tmp_path, "flush", "--to", f"file:{tmp_path}/x.log", path)
    assert result.code == 0, result
    assert counts(path)[:2] == (0, 10)
    assert _from_a_deleted_folder(tmp_path, "flush", "--to", "logging:NullHandler", path).code == 0


def _from_a_deleted_folder(tmp_path, *args):
    gone = tmp_path / "gone"
    gone.mkdir()
    # Deleted before Python starts, as it is for users: CPython 3.13's import system trips over it amid a run.
    command = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", sys.executable, "-m", "lastwords", *map(str, args)]
    return finish(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=gone),
    )


def test_a_folder_that_is_not_there_is_a_missing_journal(tmp_path):
    """Also for doctor, which looks at the folder as well."""
    for verb in (("status",), ("doctor",), ("list",)):
        result = run(*verb, tmp_path / "nope" / "j.db")
        assert result.code == 66 and result.err.count("\n") == 1, verb


# --- a full disk ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB, which is gone afterwards."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(folder):
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    return ballast


@pytest.mark.parametrize(
    "verb", [("prune", "--keep", "0"), ("flush", "--to", "SINK:deliver"), ("dead", "retry", "--all")], ids=" ".join
)
def test_a_full_disk_is_75_and_works_when_there_is_room(small_disk, sink, verb):
    """What is pending stays so and another run may find room: no mistake in the configuration."""
    path = log_to(small_disk / "j.db", 200, keep_delivered=86400)
    assert run("replay", "--limit", "100", "--to", f"{sink.name}:refuse_5", path).code == 65
    command = [word.replace("SINK", sink.name) for word in verb]
    ballast = _fill(small_disk)
    result = run(*command, path)
    assert result.code == 75, result
    assert result.err == f"lastwords: {path}: the disk is full (free some space, and run this again)\n"
    ballast.unlink()
    assert run(*command, path).code == 0


def test_a_full_disk_is_told_from_other_trouble(tmp_path):
    """By SQLite's code and by the system's, also where it is only the cause; the control is an error of another kind."""
    conn = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    conn.execute("PRAGMA max_page_count=1")
    with pytest.raises(sqlite3.OperationalError) as full:
        conn.execute("CREATE TABLE t (x)")
    conn.close()
    outer = JournalError("j.db", "cannot be opened: something")
    outer.__cause__ = full.value
    for error in (full.value, outer, OSError(28, "No space left on device")):
        assert explain("j.db", error).exit_code == 75
    assert explain("j.db", OSError(5, "Input/output error")).exit_code == 78
    assert explain("j.db", JournalError("j.db", "is odd")).exit_code == 78
    assert isinstance(explain("j.db", JournalBusy("j.db", "is locked")), JournalBusy)
