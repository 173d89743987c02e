"""`lastwords doctor`: finds what is wrong, and says so without touching it."""

import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from cli.tools import log_to, run, run_json, snapshot, sql, start
from lastwords.cli import doctor_checks
from lastwords.delivery.lease import Holder


def findings(path, *options):
    code, (said,) = run_json("doctor", "--json", *options, path)
    return code, {finding["check"]: finding for finding in said["findings"] if finding["verdict"] != "ok"}, said


def test_a_sound_journal_has_no_damage(journal, sink):
    """Every check is named, and none finds damage; the SQLite version is shown."""
    path = journal()
    run("flush", "--to", f"{sink.name}:refuse_5", path)
    code, bad, said = findings(path)
    assert code == 0
    assert set(bad) <= {"file system"}, "what only the distribution can change is no warning"
    names = {finding["check"] for finding in said["findings"]}
    assert {"SQLite", "file system", "mode", "lease", "format", "epochs", "integrity", "checksums", "counts"} <= names
    assert sqlite3.sqlite_version in run("doctor", path).out


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("UPDATE entries SET payload = replace(payload, 'message', 'massage') WHERE seq = 9", "checksums"),
        ("UPDATE entries SET payload = CAST(X'FF' AS TEXT) WHERE seq = 9", "checksums"),
        ("UPDATE entries SET created = 'x' WHERE seq = 9", "checksums"),
        ("UPDATE dead_letters SET payload = '{}'", "checksums"),
        ("DELETE FROM entries WHERE seq = 8", "counts"),
        ("DELETE FROM dead_letters", "counts"),
        ("UPDATE cursor SET consumed = consumed + 1", "counts"),
        ("UPDATE cursor SET dropped = 5", "counts"),
        ("INSERT INTO epochs SELECT 900, uuid, boot, device, inode, begun_at FROM epochs LIMIT 1", "epochs"),
    ],
)
def test_damage_is_found_and_named(journal, sink, change, check, tmp_path):
    """What is not as it was written is damage, 65, and the file stays as it is."""
    path = journal()
    run("replay", "--limit", "6", "--to", f"{sink.name}:refuse_5", path)
    assert findings(path)[0] == 0, "negative control: sound before the change"
    sql(path, change)
    before = snapshot(tmp_path)
    code, bad, _ = findings(path)
    assert code == 65
    assert bad[check]["verdict"] == "damage"
    assert "FAIL" in run("doctor", path).out
    assert snapshot(tmp_path) == before


def test_quick_leaves_out_what_reads_the_whole_file(journal):
    """--quick does not see a damaged row; it says nothing about rows at all."""
    path = journal()
    sql(path, "UPDATE entries SET payload = '{}' WHERE seq = 3")
    code, bad, said = findings(path, "--quick")
    assert code == 0
    assert "checksums" not in {finding["check"] for finding in said["findings"]}
    assert "checksums" not in bad


def test_a_damaged_page_is_found(journal, tmp_path):
    """integrity_check is part of it: pages in the middle of the file are looked at."""
    path = journal(count=3000)
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))
    result = run("doctor", path)
    assert result.code == 65
    assert "FAIL" in result.out


def test_modes_that_let_others_in_are_warned_of(journal):
    """A journal that everybody may read, and side files that do not fit it."""
    path = journal()
    os.chmod(path, 0o644)
    _, bad, _ = findings(path)
    assert "0644" in bad["mode"]["text"]
    os.chmod(path, 0o600)
    with open(path + ".lock", "w"):
        pass
    os.chmod(path + ".lock", 0o666)
    _, bad, _ = findings(path)
    assert "0666" in bad["side file"]["text"]


def test_a_copy_is_recognised(journal, tmp_path):
    """A copied journal says that it is one; nothing is wrong with it."""
    path = journal()
    shutil.copy(path, tmp_path / "copy.db")
    code, bad, said = findings(str(tmp_path / "copy.db"))
    assert code == 0
    assert "copy" in next(finding["text"] for finding in said["findings"] if finding["check"] == "epochs")


@pytest.mark.slow
def test_a_stopped_holder_of_the_lease_is_named_with_the_way_out(journal, sink, poll):
    """A process under SIGSTOP that holds the lease: the warning names it and --takeover."""
    path = journal()
    process = start("flush", "--to", f"{sink.name}:hang", path)
    try:
        assert poll(lambda: os.path.exists(f"{sink.file}.hangs"), 60)
        _, bad, _ = findings(path)
        assert "lease" not in bad
        process.send_signal(signal.SIGSTOP)
        assert poll(lambda: "lease" in findings(path)[1], 30)
        _, bad, _ = findings(path)
        assert str(process.pid) in bad["lease"]["text"]
        assert "--takeover" in bad["lease"]["hint"]
    finally:
        process.kill()
        process.communicate()


def test_an_entry_that_keeps_failing_is_pointed_out(journal, sink, module):
    """The head of the line failed: how often, since when, why."""
    name = module("def deliver(entries):\n    raise ValueError('no such field')\n")
    path = journal()
    run("flush", "--to", f"{name}:deliver", "--timeout", "1", path)
    _, bad, _ = findings(path)
    assert "no such field" in bad["line"]["text"]


# --- hints ---------------------------------------------------------------------------------------------------------


def damaged_page(path, monkeypatch, sink):
    log_to(path, 3000)
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))


def damaged_tables(path, monkeypatch, sink):
    log_to(path, 300)
    open(f"{path}.commit", "a").close()
    os.chmod(f"{path}.commit", 0o600)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096 * 5))


def damaged_row(path, monkeypatch, sink):
    sql(log_to(path), "UPDATE entries SET payload = '{}' WHERE seq = 3")


def damaged_letter(path, monkeypatch, sink):
    run("flush", "--to", f"{sink.name}:refuse_5", log_to(path))
    sql(path, "UPDATE dead_letters SET payload = '{}'")


def wrong_counts(path, monkeypatch, sink):
    sql(log_to(path), "DELETE FROM entries WHERE seq = 8")


def open_mode(path, monkeypatch, sink):
    os.chmod(log_to(path), 0o644)


def open_side_file(path, monkeypatch, sink):
    open(log_to(path) + ".lock", "w").close()
    os.chmod(f"{path}.lock", 0o666)


def failing_head(path, monkeypatch, sink):
    sql(log_to(path), "UPDATE cursor SET attempts = 3, failed_at = 1.0, last_error = 'ValueError: 7'")


def target_down(path, monkeypatch, sink):
    log_to(path)
    run("flush", "--to", f"{sink.name}:down", "--timeout", "1", path)


def stale(path, monkeypatch, sink):
    log_to(path, at=time.time() - 9 * 86400)


def set_aside(path, monkeypatch, sink):
    log_to(path)
    for suffix in ("", "-wal"):
        aside = f"{path}.damaged-20260101T000000Z{suffix}"
        open(aside, "w").close()
        os.chmod(aside, 0o600)


def big_wal(path, monkeypatch, sink):
    log_to(path)
    monkeypatch.setattr(doctor_checks.keeper, "CHECKPOINT_BYTES", -1)


def full(path, monkeypatch, sink):
    log_to(path)
    none = SimpleNamespace(f_files=1000, f_favail=0, f_bavail=0, f_frsize=4096)
    monkeypatch.setattr(doctor_checks.os, "statvfs", lambda folder: none)


def volatile(path, monkeypatch, sink):
    log_to(path)
    monkeypatch.setattr(doctor_checks.places, "filesystem_of", lambda folder: "tmpfs")


def held(path, monkeypatch, **state):
    log_to(path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setattr(doctor_checks.lease_, "look", lambda path: Holder(child.pid, next_attempt=None, **state))
    return child


def stopped(path, monkeypatch, sink):
    return held(path, monkeypatch, stopped=True, since=None)


def hung(path, monkeypatch, sink):
    return held(path, monkeypatch, stopped=False, since=time.time() - 300)


def follow_hints(said, sink):
    """Type what the hints name; whether there was anything to type."""
    lines = [line for line in (said.out + said.err).splitlines() if "  ok  " not in line]
    commands = [command for line in lines for command in re.findall("`([^`]+)`", line)]
    for command in commands:
        words = [word.replace("TARGET", f"{sink.name}:deliver") for word in shlex.split(command)]
        if words[0] == "lastwords":
            assert run(*words[1:]).code in (0, 65), command
        else:
            assert subprocess.run(["sh", "-c", command], capture_output=True).returncode == 0, command
    return bool(commands)


@pytest.mark.parametrize(
    "make",
    [
        damaged_page,
        damaged_tables,
        damaged_row,
        damaged_letter,
        wrong_counts,
        open_mode,
        open_side_file,
        failing_head,
        target_down,
        stale,
        set_aside,
        big_wal,
        full,
        volatile,
        stopped,
        hung,
    ],
    ids=lambda make: make.__name__,
)
def test_each_hint_is_a_command_that_works(make, tmp_path, sink, monkeypatch):
    """Whatever is wrong, the hint can be typed as it stands, but for TARGET; in a path with a blank, too."""
    path = tmp_path / "my app" / "j.db"
    path.parent.mkdir()
    with monkeypatch.context() as patch:
        child = make(path, patch, sink)
        said = run("doctor", path)
    try:
        assert follow_hints(said, sink), said
    finally:
        if child is not None:
            child.communicate(b"\n")
    if make is not wrong_counts:
        follow_hints(run("doctor", path), sink)  # what was buried may be dropped
        assert "FAIL" not in run("doctor", path).out.replace("FAIL  set aside", ""), "and then nothing is damaged"


def test_entries_that_a_target_which_is_down_leaves_are_no_ok_line(tmp_path, sink, monkeypatch):
    """And they are one again when something was delivered since."""
    path = tmp_path / "j.db"
    target_down(path, monkeypatch, sink)
    (line,) = [line for line in run("doctor", "--quick", path).out.splitlines() if " line: " in line]
    assert line.startswith("  WARN") and "nobody there" in line and "10 entries pending" in line
    assert run("flush", "--to", f"{sink.name}:deliver", path).code == 0
    log_to(path, 2)
    assert "  ok    line: 2 entries pending" in run("doctor", "--quick", path).out
    card = run("status", path).out
    assert "delivered since" in card and "nobody there" in card


def test_one_finding_is_one_line_and_damage_comes_first(tmp_path, sink, monkeypatch):
    """What several checks met alike is said once."""
    path = tmp_path / "j.db"
    damaged_page(path, monkeypatch, sink)
    lines = run("doctor", path).out.splitlines()
    assert lines[0] == str(path) and lines[1].startswith("  FAIL  integrity")
    assert sum("FAIL" in line for line in lines) == 1
    assert all(re.match("  (FAIL|WARN|ok  )  ", line) for line in lines[1:])
