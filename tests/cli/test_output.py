"""Where the output goes: a stdout that is closed, a device that is full. The work is done, and it is said in one line."""

import os
import stat
import subprocess
import sys

import pytest

from cli.tools import counts, finish, log_to, run, spawn, sql

VERBS = (
    ("status", "J"),
    ("status", "--json", "J"),
    ("list", "J"),
    ("doctor", "J"),
    ("dead", "list", "J"),
    ("dead", "retry", "--all", "J"),
    ("dead", "drop", "--all", "--yes", "J"),
    ("prune", "J"),
    ("replay", "--dry-run", "--to", "SINK:deliver", "J"),
    ("replay", "--level", "debug", "--to", "SINK:deliver", "J"),
    ("replay", "--to", "SINK:deliver", "J"),
    ("flush", "--to", "SINK:deliver", "J"),
    ("flush", "--json", "--to", "SINK:deliver", "J"),
    ("--help",),
    ("list", "--help"),
    ("--version",),
)


def closed(redirection, *args):
    """Run a verb with a standard stream closed, as a shell or a daemon does it."""
    command = [sys.executable, "-m", "lastwords", *map(str, args)]
    return finish(
        subprocess.Popen(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )


def filled_in(verb, path, sink):
    return [
        word.replace("SINK", sink.name).replace("J", path) if word == "J" or "SINK" in word else word for word in verb
    ]


@pytest.fixture
def full(tmp_path):
    """A device on which no space is left, of our own: no test may be able to spoil the real one."""
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        fd = os.open(path, os.O_WRONLY)
    except OSError:
        pytest.skip("no devices in this folder")
    with pytest.raises(OSError, match="No space left"):
        os.write(fd, b"x")
    os.close(fd)
    return path


def without_announcement(err):
    """What `replay` is about to settle is said before, and is no complaint."""
    return "".join(line for line in err.splitlines(keepends=True) if "delivers and settles" not in line)


# --- closed -----------------------------------------------------------------------------------------------------


FIRST = [VERBS[0], VERBS[2], ("prune", "J")]  # with a process for each: the others are slow


@pytest.mark.parametrize(
    "verb", [verb if verb in FIRST else pytest.param(verb, marks=pytest.mark.slow) for verb in VERBS], ids=" ".join
)
def test_with_stdout_closed_the_work_is_done(verb, journal, sink):
    """`>&-` is a wish to hear nothing: the exit code is the usual one, and there is no complaint."""
    path = journal()
    result = closed(">&-", *filled_in(verb, path, sink))
    assert (result.code, result.out, without_announcement(result.err)) == (0, "", "")
    settles = verb[0] == "flush" or verb[:2] == ("replay", "--to")
    assert counts(path)[:2] == ((0, 10) if settles else (10, 0))
    assert bool(sink.lines()) is (settles or "--level" in verb)


@pytest.mark.slow
def test_with_all_three_closed_the_work_is_done(journal, sink):
    """As under a daemon that closed them: no file of ours takes their place, into which somebody then prints."""
    path = journal()
    name = f"{sink.name}:deliver"
    with open(f"{sink.name}.py", "a") as file:
        file.write("\nimport os\nfor number in (0, 1, 2):\n    os.write(number, b'spoilt by a print')\n")
    result = closed(">&- 2>&- <&-", "flush", "--to", name, path)
    assert (result.code, result.out, result.err) == (0, "", "")
    assert counts(path)[:2] == (0, 10)
    assert run("doctor", path).code == 0
    assert not [name for name in os.listdir(".") if name.startswith("j.db") and b"spoilt" in open(name, "rb").read()]


@pytest.mark.slow
def test_with_stdout_closed_what_is_wrong_is_said_and_has_its_code(journal):
    """Negative control: the code is not always 0."""
    result = closed(">&-", "status", "nope.db")
    assert result.code == 66
    assert "no such journal" in result.err
    assert closed(">&- 2>&-", "status", "nope.db").code == 66
    assert closed("2>&-", "flush", "--to", "nope:nope", journal()).code == 78
    assert closed("2>&-", "nonsense").code == 2


@pytest.mark.parametrize("settle", [pytest.param((), marks=pytest.mark.slow), ("--settle",)])
def test_what_is_shown_on_a_closed_stdout_is_not_settled(journal, settle):
    """`replay --to stdout: --settle >&-` shows nobody anything, so everything stays."""
    path = journal()
    result = closed(">&-", "replay", "--to", "stdout:", *settle, path)
    assert result.code == 74
    assert without_announcement(result.err) == "lastwords: the output cannot be written to stdout: it is closed\n"
    assert counts(path)[:2] == (10, 0)


# --- full -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_on_a_full_device_one_line_blames_the_output(verb, journal, sink, full):
    """74 and a line about stdout, not about the journal; what was to be done is done."""
    path = journal()
    sql(path, "UPDATE cursor SET last_error = 'x'")
    with open(full, "w") as stdout:
        result = spawn(*filled_in(verb, path, sink), stdout=stdout)
    if verb[:2] == ("dead", "list"):  # which has nothing to say
        assert (result.code, result.err) == (0, "")
        return
    assert result.code == 74, result
    assert (
        without_announcement(result.err)
        == "lastwords: the output cannot be written to stdout: No space left on device\n"
    )
    settles = verb[0] == "flush" or verb[:2] == ("replay", "--to")
    assert counts(path)[:2] == ((0, 10) if settles else (10, 0))
    assert bool(sink.lines()) is (settles or "--level" in verb)


def test_a_check_on_a_full_device_is_unknown(journal, full):
    """A monitor knows the codes 0 to 3."""
    with open(full, "w") as stdout:
        result = spawn("status", "--check", journal(), stdout=stdout)
    assert result.code == 3
    assert len(result.err.splitlines()) == 1 and "stdout" in result.err


def test_output_to_a_full_device_is_74(journal, full):
    """--output names the file; the device stays one."""
    result = run("status", "--json", "--output", full, journal())
    assert result.code == 74
    assert f"cannot be written to {full}: No space left" in result.err
    assert stat.S_ISCHR(os.stat(full).st_mode)


@pytest.mark.slow
def test_entries_are_not_settled_on_a_full_device(journal, full):
    """`replay --to stdout: --settle` ends at once with one line; the entries stay."""
    path = journal()
    for options in ((), ("--settle",)):
        with open(full, "w") as stdout:
            result = spawn("replay", "--to", "stdout:", *options, path, stdout=stdout)
        assert result.code == 74, result
        assert len(result.err.splitlines()) == 1 and "No space left" in result.err
        assert counts(path)[:2] == (10, 0)


@pytest.mark.slow
def test_complaints_on_a_full_device_change_no_exit_code(journal, sink, full):
    """A full stderr is nobody's fault: the code is that of the work."""
    path = journal()
    for verb, code in ((("status", "nope.db"), 66), (("list", "--nonsense", path), 2)):
        with open(full, "w") as stderr:
            assert spawn(*verb, stderr=stderr).code == code
    with open(full, "w") as stderr:
        assert spawn("flush", "-v", "--to", f"{sink.name}:deliver", path, stderr=stderr).code == 0
    assert counts(path)[:2] == (0, 10)


# --- stderr: -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stderr_is_a_target_like_stdout(journal):
    """replay shows on it and settles nothing without --settle; flush says that it is for looking."""
    path = journal()
    result = spawn("replay", "--to", "stderr:", path)
    assert result.code == 0
    assert result.err.count("message") == 10 and "delivered copies of 10" in result.out
    assert counts(path)[:2] == (10, 0)
    refused = run("flush", "--to", "stderr:", path)
    assert refused.code == 2 and "replay --to stderr:" in refused.err
    assert spawn("replay", "--settle", "--to", "stderr:", path).code == 0
    assert counts(path)[:2] == (0, 10)


@pytest.mark.slow
def test_stdout_has_nothing_but_the_entries(journal):
    """Control of the test above: there the summary goes to stderr."""
    path = log_to(journal(count=0), 3)
    result = spawn("replay", "--to", "stdout:", path)
    assert result.out.count("message") == 3 and "delivered" not in result.out
    assert "delivered copies of 3" in result.err
