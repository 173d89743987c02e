"""`lastwords doctor`: finds what is wrong, and says so without touching it."""

import os
import shutil
import signal
import sqlite3

import pytest

from cli.tools import run, run_json, snapshot, sql, start
from lastwords.journal.sqlite_codes import wal_reset_is_safe


def findings(path, *options):
    code, (said,) = run_json("doctor", "--json", *options, path)
    return code, {finding["check"]: finding for finding in said["findings"] if finding["verdict"] != "ok"}, said


def test_a_sound_journal_has_no_damage(journal, sink):
    """Every check is named, and none finds damage; the SQLite version is judged."""
    path = journal()
    run("flush", "--to", f"{sink.name}:refuse_5", path)
    code, bad, said = findings(path)
    assert code == 0
    assert set(bad) <= {"SQLite", "file system"}
    assert ("SQLite" in bad) is not wal_reset_is_safe()
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


def test_a_stopped_holder_of_the_lease_is_named_with_the_way_out(journal, sink, poll):
    """A process under SIGSTOP that holds the lease: the warning names it and --takeover."""
    path = journal()
    process = start("flush", "--to", f"{sink.name}:hang", path)
    try:
        assert poll(lambda: os.path.exists(f"{sink.file}.hangs"))
        _, bad, _ = findings(path)
        assert "lease" not in bad
        process.send_signal(signal.SIGSTOP)
        assert poll(lambda: "lease" in findings(path)[1], 5)
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
