"""What all verbs have in common: help, exit codes, bad journals, broken pipes, and that looking leaves no trace."""

import os
import shutil
import signal
import subprocess
import sys
import time

import click
import pytest

import lastwords
from cli.tools import as_nobody, counts, finish, log_to, run, snapshot, spawn, sql, start
from lastwords.cli.main import VERBS, cli

LOOKING = (("status",), ("list",), ("doctor",), ("dead", "list"))


def commands():
    """Every command with its path, groups included."""
    ctx = click.Context(cli)
    for verb in VERBS:
        command = cli.get_command(ctx, verb)
        yield (verb,), command
        if isinstance(command, click.Group):
            for name, sub in command.commands.items():
                yield (verb, name), sub


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_every_verb_has_help_with_examples_that_name_real_options(path):
    """`--help` of each verb describes it, shows examples, and each option has a text."""
    command = dict(commands())[path]
    result = run(*path, "--help")
    assert result.code == 0
    assert "Examples:" in result.out
    assert f"lastwords {' '.join(path)}" in result.out
    assert command.help
    known = {opt for param in command.params for opt in param.opts} | {"--help", "-h"}
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{path}: {param.name} has no help text"
    if not isinstance(command, click.Group):
        examples = result.out.partition("Examples:")[2]
        used = {
            word.split("=")[0]
            for line in examples.splitlines()
            for word in line.partition("|")[0].rpartition(" lastwords ")[2].split()  # what ssh is told is ssh's
            if word.startswith("-")
        }
        assert used <= known, f"{path}: the examples use {used - known}"


def test_help_of_the_whole_lists_verbs_and_exit_codes():
    """`lastwords --help` names each verb and each exit code."""
    out = run("--help").out
    assert all(f"\n  {verb} " in out for verb in VERBS)
    assert all(code in out for code in ("75", "65", "66", "77", "78"))
    assert run("--version").out.strip().endswith(lastwords.__version__)


def test_help_imports_nothing_heavy():
    """`--help` must answer at once: no sqlite-utils, no tenacity, no smtplib, no module of a verb's machinery."""
    code = (
        "import sys; from lastwords.cli.main import cli\n"
        "try: cli.main(['flush', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('sqlite_utils', 'tenacity', 'smtplib', 'lastwords.cli.delivering.deliver') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_every_help_has_examples_and_fits_80_columns(monkeypatch):
    """At 3 a.m. nobody reads more than the examples, over ssh."""
    monkeypatch.setenv("COLUMNS", "80")
    for verb in ((), *(verb for verb, _ in commands())):
        text = run(*verb, "--help").out
        assert max(map(len, text.splitlines())) <= 80, text
        assert "..." not in text.partition("Commands:")[2].partition("\n\n")[0], "a summary that is cut"
        assert not verb or "  Examples:\n    lastwords " in text, text


def test_a_slip_of_the_finger_is_told_the_name_that_is_there(journal):
    """The journal that is named alike, or the folder that is missing."""
    path = journal("orders.db")
    assert f"(there is {path})" in run("status", "order.db").err
    assert f"there is no folder {os.path.abspath('ordres')}" in run("status", "ordres/orders.db").err
    assert "check the path" in run("status", "something_else_entirely").err


def test_usage_errors_are_2():
    """An unknown verb, an unknown option and a missing JOURNAL are wrong usage."""
    assert run("nonsense").code == 2
    assert run("status", "--nonsense", "x.db").code == 2
    assert run("status").code == 2
    assert run("list", "a.db", "b.db").code == 2


# --- bad journals: one line, the right code, not touched ------------------------------------------------------


def damaged_header(path):
    path.write_bytes(b"this was a journal once" * 500)


def damaged_pages(path):
    log_to(path, 200)
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 6] = os.urandom(4096 * 5)
    path.write_bytes(content)


def foreign(path):
    sql(path, "PRAGMA application_id=1", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")


def too_new(path):
    log_to(path)
    sql(path, "UPDATE meta SET value = '99' WHERE key = 'min_reader'", "PRAGMA user_version=99")


def with_trigger(path):
    log_to(path)
    sql(path, "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END")


def without_tables(path):
    log_to(path)
    sql(path, "DROP TABLE cursor")


def empty(path):
    path.write_bytes(b"")


def folder(path):
    path.mkdir()


def missing(path):
    pass


def link(path):
    target = path.with_name("real.db")
    log_to(target)
    path.symlink_to(target)


BAD = {
    damaged_header: 65,
    damaged_pages: 65,
    foreign: 65,
    too_new: 65,
    with_trigger: 65,
    without_tables: 65,
    empty: 66,
    missing: 66,
    folder: 78,
    link: 77,
}


VERBS_FIRST = (("status",), ("flush", "--to", "SINK:deliver"), ("dead", "retry", "--all"), ("doctor",))
VERBS_TOO = (
    ("list",),
    ("replay", "--to", "SINK:deliver"),
    ("replay", "--to", "SINK:deliver", "--level", "info"),
    ("replay", "--to", "SINK:deliver", "--dry-run"),
    ("dead", "list"),
    ("dead", "drop", "--all", "--yes"),
    ("prune",),
)


@pytest.mark.parametrize(
    "verb", [*VERBS_FIRST, *(pytest.param(verb, marks=pytest.mark.slow) for verb in VERBS_TOO)], ids=" ".join
)
@pytest.mark.parametrize("kind", BAD, ids=lambda kind: kind.__name__)
def test_a_bad_journal_is_one_line_the_right_code_and_not_touched(kind, verb, tmp_path, sink):
    """A journal that cannot be used is named with the problem and a hint, and stays as it is to the byte."""
    where = tmp_path / "bad"
    where.mkdir()
    path = where / "j.db"
    kind(path)
    before = snapshot(where) if kind is not folder else None
    result = run(*(word.replace("SINK", sink.name) for word in verb), path)
    if (
        kind in (damaged_pages, without_tables) and verb[0] == "flush"
    ):  # which delivers what can be read, as a service would
        assert result.code == 65
        assert "set aside" in result.err
        assert sink.lines()
        return
    if kind is damaged_pages and verb[0] == "doctor" and result.code == 65:
        assert "FAIL" in result.out or str(path) in result.err
    else:
        assert result.code == BAD[kind], result.err
        lines = result.err.strip().splitlines()
        assert len(lines) == 1, result.err
        assert lines[0].startswith(f"lastwords: {path}: ")
        assert lines[0].endswith(")"), "there is a hint"
    if before is not None:
        assert snapshot(where) == before
    assert sink.lines() == []


def test_a_good_journal_passes_where_the_bad_ones_fail(tmp_path, journal, sink):
    """Negative control of the test above: the same verbs work on a sound journal."""
    path = journal()
    for verb in (("status",), ("list",), ("doctor",), ("flush", "--to", f"{sink.name}:deliver"), ("prune",)):
        assert run(*verb, path).code == 0


@pytest.mark.slow
def test_no_permission_is_77(public):
    """A journal of another user, or in a folder that cannot be entered, is 77, for reading and for delivering."""
    path = log_to(public / "j.db")
    to = ("flush", "--to", "logging:NullHandler")
    if os.geteuid() != 0:
        os.chmod(path, 0)
    for verb in (("status",), to):
        result = as_nobody(*verb, path)
        assert result.code == 77, result
        assert len(result.err.strip().splitlines()) == 1
    os.chmod(public, 0o600 if os.geteuid() else 0o700)
    result = as_nobody("status", path)
    os.chmod(public, 0o755)
    assert result.code == 77, result


@pytest.mark.slow
def test_a_monitor_may_read_where_the_mode_allows_it_but_not_deliver(public):
    """mode=0o644 lets another user look; delivering from a file that is not one's own stays refused."""
    path = log_to(public / "j.db", mode=0o644)
    assert as_nobody("status", path).code == 0
    if os.geteuid() == 0:
        assert as_nobody("flush", "--to", "logging:NullHandler", path).code == 77


def test_of_several_journals_the_gravest_code_wins(tmp_path, journal, sink):
    """78 before 77 before 66 before 65 before 75; each journal is worked on all the same."""
    good = journal("good.db")
    foreign(tmp_path / "foreign.db")
    link(tmp_path / "link.db")
    folder(tmp_path / "folder")
    to = ("flush", "--to", f"{sink.name}:deliver")
    assert run(*to, good, tmp_path / "foreign.db").code == 65
    assert counts(good)[0] == 0
    assert run(*to, tmp_path / "foreign.db", "nope.db").code == 66
    assert run(*to, "nope.db", tmp_path / "link.db").code == 77
    assert run(*to, "nope.db", tmp_path / "link.db", tmp_path / "folder").code == 78
    stuck = journal("stuck.db")
    down = ("flush", "--timeout", "1", "--to", f"{sink.name}:down")
    assert run(*down, stuck).code == 75
    assert run(*down, stuck, tmp_path / "foreign.db").code == 65


def test_a_pattern_that_matches_nothing_is_0(tmp_path, sink):
    """A crontab line may be there before the first journal is; a plain path that is missing is 66."""
    for verb in (("status",), ("doctor",), ("prune",), ("dead", "list"), ("flush", "--to", f"{sink.name}:deliver")):
        result = run(*verb, str(tmp_path / "*.db"))
        assert (result.code, result.err) == (0, ""), verb


def test_a_pattern_matches_journals_not_their_side_files(tmp_path, killed):
    """`j.db*` is the journal, not its -wal, -shm, .lock and .commit."""
    killed("j.db")
    run("flush", "--to", "nope:nope", "j.db")
    result = run("status", str(tmp_path / "j.db*"))
    assert result.code == 0
    assert result.out.count("j.db") == 1, result.out


# --- looking ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", LOOKING, ids=" ".join)
@pytest.mark.parametrize("condition", ["at rest", "killed"])
def test_looking_changes_nothing(verb, condition, tmp_path, killed):
    """status, list, doctor and dead list leave bytes, times and the folder as they are."""
    where = tmp_path / "where"
    where.mkdir()
    path = log_to(where / "j.db") if condition == "at rest" else killed("where/j.db")
    before = snapshot(where)
    assert (len(before) > 2) is (condition == "killed")
    assert run(*verb, path).code == 0
    assert snapshot(where) == before


def test_delivering_does_change_the_folder(tmp_path, sink):
    """Negative control of the test above."""
    where = tmp_path / "where"
    where.mkdir()
    path = log_to(where / "j.db")
    before = snapshot(where)
    assert run("flush", "--to", f"{sink.name}:deliver", path).code == 0
    assert snapshot(where) != before


@pytest.mark.slow
def test_looking_works_on_a_read_only_folder_without_side_files(public):
    """A backup on a medium that cannot be written can be looked at, as any user who may read it."""
    path = log_to(public / "j.db", mode=0o644)
    for name in os.listdir(public):
        if name != "j.db":
            os.unlink(public / name)
    os.chmod(path, 0o444)
    os.chmod(public, 0o555)
    for verb in LOOKING:
        result = as_nobody(*verb, path)
        assert result.code == 0, (verb, result)
    assert os.listdir(public) == ["j.db"]


@pytest.mark.slow
def test_a_wal_without_its_index_on_a_read_only_folder_is_77(public, killed):
    """What only the -wal holds cannot be read there: that is said, instead of showing half of it."""
    left = killed()
    for suffix in ("", "-wal"):
        shutil.copy(left + suffix, str(public / "j.db") + suffix)
        os.chmod(str(public / "j.db") + suffix, 0o444)
    os.chmod(public, 0o555)
    result = as_nobody("status", public / "j.db")
    assert result.code == 77, result
    assert "copy it with its -wal" in result.err


@pytest.mark.slow
@pytest.mark.parametrize("verb", LOOKING, ids=" ".join)
def test_looking_beside_a_service_that_logs(verb, tmp_path, children, sink):
    """A look beside a running service works, and holds up no logging call for long."""
    service = children.start(
        """
        import logging, os, sys, time
        from lastwords import DurableHandler
        log = logging.getLogger("app"); log.setLevel(1)
        log.addHandler(DurableHandler(None, sys.argv[1]))
        worst, until = 0, time.monotonic() + 3
        print("up", flush=True)
        while time.monotonic() < until and not os.path.exists("enough"):
            began = time.perf_counter(); log.info("x"); worst = max(worst, time.perf_counter() - began)
        print(worst)
        """,
        tmp_path / "live.db",
    )
    service.stdout.readline()
    looks = 0
    while service.poll() is None and looks < 6:
        result = spawn(*verb, tmp_path / "live.db")
        assert result.code == 0, result
        looks += 1
    (tmp_path / "enough").touch()
    out, err = service.communicate(timeout=120)
    assert looks and err == b""
    assert float(out) < 4, "a lock that is waited for is 5 s"


# --- ends -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(journal):
    """`lastwords list | head` prints what head wants and nothing on stderr."""
    path = journal(count=5000)
    process = start("list", path)
    assert process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(10) == 141
    assert err == ""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_end_after_the_mark_that_is_due(journal, sink, module, poll, number, code):
    """130 and 143: what was accepted is marked, so that nothing is lost and nothing arrives twice."""
    name = module(
        f"""
        import time
        from {sink.name} import Handler
        class Slow(Handler):
            def emit(self, record):
                super().emit(record)
                time.sleep(0.05)
        """
    )
    path = journal(count=300)
    process = start("flush", "--to", f"{name}:Slow", path)
    assert poll(lambda: len(sink.lines()) > 3)
    process.send_signal(number)
    result = finish(process)
    assert result.code == code, result
    assert "Traceback" not in result.err
    received = len(sink.lines())
    assert received < 300, "it went on to the end"
    assert counts(path) == (300 - received, received, 0)
    assert spawn("flush", "--to", f"{sink.name}:Handler", path).code == 0
    assert sink.lines() == [f"message {i}" for i in range(300)]


@pytest.mark.slow
def test_a_target_that_hangs_ends_at_the_deadline(journal, sink):
    """--timeout holds even if the target never returns: 75, and the entries are pending."""
    path = journal()
    began = time.monotonic()
    result = spawn("flush", "--to", f"{sink.name}:hang", "--timeout", "1", path)
    assert result.code == 75
    assert "did not return" in result.out
    assert time.monotonic() - began < 40
    assert counts(path)[0] == 10


@pytest.mark.slow
def test_the_console_script_is_the_same(journal):
    """`lastwords` and `python -m lastwords` are one program."""
    script = os.path.join(os.path.dirname(sys.executable), "lastwords")
    path = journal()
    done = subprocess.run([script, "status", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert path in done.stdout


def test_a_mistyped_verb_is_answered_with_the_one_that_was_meant():
    """Verbs are imported late, so click itself does not know them all."""
    said = run("stauts", "j.db")
    assert said.code == 2 and "did you mean status?" in said.err
    assert "the verbs are status, list" in run("xyzzy").err
