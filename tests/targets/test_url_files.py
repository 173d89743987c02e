"""file:, stdout: and stderr: whole lines or nothing, rotation, a full disk, torn lines, closed pipes."""

import io
import json
import logging
import os
import resource
import signal
import stat
import subprocess
import sys

import pytest

from lastwords.targets import resolve


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.log"


def test_text_lines_have_time_level_logger_message_and_traceback(path, entry):
    """What a FileHandler with a sensible format writes."""
    target = resolve(f"file:{path}")
    target.deliver([entry("disk full"), entry("disk empty", logging.INFO)])
    first, second = path.read_text().splitlines()
    assert first.endswith(" ERROR app.db: disk full") and second.endswith(" INFO app.db: disk empty")
    target.set_formatter(logging.Formatter("%(name)s|%(message)s"))
    target.deliver([entry("again")])
    assert path.read_text().splitlines()[2] == "app.db|again"


def test_json_lines_have_the_id_and_what_the_application_added(path, entry):
    """One object in a line, whatever the extras are; the id is for those who deduplicate."""
    target = resolve(f"file:{path}?format=json")
    odd = {"when": {1, 2}, "nested": {"a": float("nan"), 3: b"x"}, "big": 2**70, "lone": "\udcff", "none": None}
    target.deliver([entry("two\nlines \x1b[31m", user="müller", **odd)])
    (line,) = path.read_text(encoding="utf-8").splitlines()
    said = json.loads(line)
    assert said["id"] == "abc-1" and said["level"] == "ERROR" and said["levelno"] == 40
    assert said["message"] == "two\nlines \x1b[31m" and said["logger"] == "app.db"
    assert said["time"].endswith("Z") and abs(said["created"]) > 1e9
    assert said["extra"]["user"] == "müller"
    assert said["extra"]["nested"]["a"] == "nan"
    assert said["extra"]["big"] == str(2**70)
    with pytest.raises(ValueError, match="formatter"):
        target.set_formatter(logging.Formatter())


def test_a_new_file_is_private_unless_the_mode_says_otherwise(path, tmp_path, entry):
    """Logs hold what was private in the journal."""
    resolve(f"file:{path}").deliver([entry()])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    resolve(f"file:{tmp_path}/shared.log?mode=664").deliver([entry()])
    assert stat.S_IMODE((tmp_path / "shared.log").stat().st_mode) == 0o664


def test_the_lines_are_synced_before_they_count_as_accepted(path, entry, monkeypatch):
    """A sync that fails is a failed delivery, and what was written is taken back."""
    target = resolve(f"file:{path}")
    target.deliver([entry("good")])
    real = os.fdatasync

    def fails(fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(OSError, match="Input/output"):
        target.deliver([entry("bad")])
    monkeypatch.setattr(os, "fdatasync", real)
    assert "bad" not in path.read_text()
    target.deliver([entry("again")])
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == ["good", "again"]


def test_a_line_torn_by_a_crash_is_ended_first(path, entry):
    """Else the first new record would be glued to half of an old one."""
    path.write_text("whole\nhal")
    resolve(f"file:{path}").deliver([entry("new")])
    lines = path.read_text().splitlines()
    assert lines[:2] == ["whole", "hal"] and lines[2].endswith("new")


def test_rotated_away_means_a_new_file(path, tmp_path, entry):
    """logrotate renames; an open descriptor would write into the old file for ever."""
    target = resolve(f"file:{path}")
    target.deliver([entry("one")])
    path.rename(tmp_path / "app.log.1")
    target.deliver([entry("two")])
    path.unlink()
    target.deliver([entry("three")])
    assert "one" in (tmp_path / "app.log.1").read_text() and "two" not in (tmp_path / "app.log.1").read_text()
    assert path.read_text().count("\n") == 1 and "three" in path.read_text()


def test_a_missing_folder_is_warned_of_and_waited_for(tmp_path, entry):
    """The disk may be mounted later."""
    target = resolve(f"file:{tmp_path}/later/app.log")
    assert "does not exist" in target.warnings[0]
    with pytest.raises(OSError):
        target.deliver([entry()])
    (tmp_path / "later").mkdir()
    target.deliver([entry("here")])
    assert "here" in (tmp_path / "later/app.log").read_text()


def test_on_a_full_disk_no_half_line_stays(path, entry):
    """Here a file size limit stands for the disk: the first write is cut short, the second fails."""
    target = resolve(f"file:{path}")
    target.deliver([entry("good")])
    good = path.read_text()
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) + 50, limits[1]))
    try:
        with pytest.raises(OSError):
            target.deliver([entry("x" * 200)])
        assert os.path.getsize(path) == len(good)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    target.deliver([entry("after")])
    assert path.read_text().startswith(good) and path.read_text().count("\n") == 2


def test_what_another_process_appended_is_not_cut_back(path, entry, monkeypatch):
    """Truncating to the old length would take the neighbour's line away."""
    target = resolve(f"file:{path}")
    target.deliver([entry("ours")])

    def meanwhile(fd):
        with open(path, "a") as other:
            other.write("theirs\n")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", meanwhile)
    with pytest.raises(OSError):
        target.deliver([entry("again")])
    assert path.read_text().endswith("theirs\n")


def test_a_device_is_written_without_a_sync(entry):
    """/dev/null cannot be synced; that is no failure."""
    resolve("file:/dev/null").deliver([entry()])


def test_a_forked_child_writes_through_a_descriptor_of_its_own(path, entry):
    """The parent may close or rotate its own at any time."""
    target = resolve(f"file:{path}")
    target.deliver([entry("parent")])
    inherited = target._fd
    child = os.fork()
    if child == 0:
        try:
            target.deliver([entry("child")])
            os._exit(0 if target._pid == os.getpid() else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert target._fd == inherited
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == ["parent", "child"]


# --- streams -------------------------------------------------------------------------------------------------------


def test_stdout_and_stderr_are_those_of_the_moment(entry, capsys):
    """Tests and supervisors replace them."""
    resolve("stdout:").deliver([entry("out")])
    resolve("stderr:?format=json").deliver([entry("err")])
    captured = capsys.readouterr()
    assert captured.out.endswith("app.db: out\n")
    assert json.loads(captured.err)["message"] == "err"


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_stream_that_is_gone_is_an_outage_not_a_fault_of_the_entry(entry, monkeypatch, stream):
    """ValueError would count against the entry."""
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(ConnectionError, match="stdout"):
        resolve("stdout:").deliver([entry()])


def test_what_the_terminal_cannot_show_is_escaped(entry, monkeypatch):
    """An ASCII stdout must not stop the line."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    resolve("stdout:").deliver([entry("Müller")])
    assert rb"M\xfcller" in raw.getvalue()


def test_a_closed_pipe_is_an_error_and_the_entries_stay(tmp_path):
    """`lastwords replay --to stdout: | head` must not settle what nobody read."""
    code = (
        "import logging, sys\nfrom lastwords.record import codec\nfrom lastwords.targets import resolve\n"
        "r = logging.LogRecord('a', 40, 'p', 1, 'm', (), None)\nc, l, p, _ = codec.encode(r)\n"
        "e = codec.decode(seq=1, id='x-1', created=c, level=l, payload=p)\n"
        "sys.stdin.read()\n"
        "try:\n    resolve('stdout:').deliver([e])\nexcept BrokenPipeError:\n    sys.stderr.write('heard')\n"
        "import os; os._exit(0)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child.stdout.close()
    child.stdin.close()
    assert child.stderr.read() == "heard"
    child.stderr.close()
    child.wait(20)
