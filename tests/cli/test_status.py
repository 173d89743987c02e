"""`lastwords status`: numbers for people, programs, monitors and Prometheus; true, and without side effects."""

import json
import os
import re
import stat
import time

import click
import pytest

from cli.tools import finish, log_to, run, run_json, spawn, sql, start
from lastwords.cli import status_tables
from lastwords.delivery.lease import Lease
from lastwords.journal.schema import FORMAT

NEEDED = {
    "journal", "pending", "delivered", "dead", "dropped", "oldest_age_seconds", "last_error", "lease_pid", "bytes",
    "wal_bytes", "destination", "format", "error",
}  # fmt: skip


def test_json_has_every_field_with_its_true_value(journal, sink):
    """The numbers are those of the journal: pending, delivered, dead and dropped; the rest is there too."""
    path = journal(count=12)
    assert run("flush", "--to", f"{sink.name}:refuse_5", "--timeout", "5", path).code == 65
    log_to(path, 3)
    sql(path, "UPDATE cursor SET dropped = 4, consumed = consumed", "INSERT INTO drops VALUES (10, 4, 0, 1, 2)")
    code, (state,) = run_json("status", "--json", path)
    assert code == 0
    assert NEEDED <= state.keys()
    assert (state["pending"], state["delivered"], state["dead"], state["dropped"]) == (3, 11, 1, 4)
    assert state["journal"] == path
    assert state["last_error"] is None or "550" in state["last_error"]
    assert state["lease_pid"] is None
    assert state["format"] == FORMAT
    assert 0 <= state["oldest_age_seconds"] < 60
    assert state["bytes"] == os.path.getsize(path)


def test_an_empty_journal_has_no_oldest_entry(journal):
    """Nothing pending: the age is null, not 0 and not an error."""
    _, (state,) = run_json("status", "--json", journal(count=0))
    assert (state["pending"], state["oldest_age_seconds"]) == (0, None)


def test_json_says_what_is_wrong_with_a_journal_beside_the_others(journal):
    """A program gets one object per journal, also for one that cannot be read."""
    path = journal()
    code, states = run_json("status", "--json", path, "nope.db")
    assert code == 66
    assert [bool(state["error"]) for state in states] == [False, True]
    assert states[1]["exit_code"] == 66


@pytest.mark.slow
def test_the_holder_of_the_lease_is_named(journal, sink, poll):
    """While a process delivers, its pid is in the status; afterwards it is free."""
    path = journal()
    process = start("flush", "--to", f"{sink.name}:hang", "--timeout", "30", path)
    try:
        assert poll(lambda: os.path.exists(f"{sink.file}.hangs"))
        _, (state,) = run_json("status", "--json", path)
        assert state["lease_pid"] == process.pid
        assert f"pid {process.pid}" in run("status", path).out
    finally:
        process.kill()
        process.communicate()
    _, (state,) = run_json("status", "--json", path)
    assert state["lease_pid"] is None


def test_people_get_an_aligned_table_without_colours(journal):
    """Columns line up, numbers are grouped, nothing is coloured."""
    paths = [journal("a.db", count=1500), journal("much-longer-name.db", count=2)]
    out = run("status", *paths).out
    folder, head, *rows = out.splitlines()
    assert folder == os.path.dirname(paths[0]) + ":"
    assert "\x1b" not in out
    assert "1,500" in rows[0]
    end = head.index("PENDING") + len("PENDING")
    assert [row[:end].split()[-1] for row in rows] == ["1,500", "2"]
    assert re.search(r"\d (B|KiB|MiB)", rows[0])


def test_the_last_error_of_a_stuck_journal_is_shown(journal, sink):
    """People see why entries are pending, with control characters escaped."""
    path = journal()
    run("flush", "--to", f"{sink.name}:down", "--timeout", "0.5", path)
    sql(path, "UPDATE cursor SET last_error = 'bad \x1b[31m news'")
    assert r"last error" in run("status", path).out
    assert r"bad \x1b[31m news" in run("status", path).out


def test_a_table_fits_the_terminal(tmp_path, monkeypatch):
    """Long names lose their beginning, numbers nothing."""
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / ("a-folder-with-a-long-name" * 2)
    folder.mkdir()
    paths = [log_to(folder / f"a-service-with-quite-a-long-name-of-its-own-{n}.db", 2) for n in range(3)]
    sql(paths[0], "UPDATE cursor SET delivered = 123456789")
    out = run("status", *paths).out
    assert all(len(line) <= 80 for line in out.splitlines()[1:])
    assert "123,456,789" in out and "its-own-2.db" in out.replace("…", "")[-200:]


def test_a_table_of_large_numbers_fits_as_well(monkeypatch):
    """They are rounded where they leave no room for names, and only there."""
    monkeypatch.setenv("COLUMNS", "80")
    state = {
        "journal": "/var/lib/apps/service.db", "pending": 1_234_567, "oldest_age_seconds": 90_000.0,
        "delivered": 123_456_789, "dead": 12_345, "dropped": 99_950, "bytes": 2**30, "wal_bytes": 2**29,
        "lease_pid": 12_345, "lease_state": "waiting", "error": None, "set_aside": [], "missing": 0,
    }  # fmt: skip
    shown = click.unstyle(status_tables.table([state, state | {"journal": "/var/lib/apps/b.db", "pending": 7}]))
    assert max(map(len, shown.splitlines())) <= 80
    assert [line.split()[1] for line in shown.splitlines()[1:]] == ["PENDING", "1.23M", "7"]
    assert "service.db" in shown and "123M" in shown and "12.3k" in shown and "100k" in shown
    monkeypatch.setenv("COLUMNS", "120")
    assert "123,456,789" in status_tables.table([state])


def test_one_journal_is_shown_as_a_card(journal, sink):
    """What waits, why, who holds the lease, what was buried first."""
    path = journal(count=6)
    assert run("flush", "--to", f"{sink.name}:refuse_5", path).code == 65
    log_to(path, 2)
    run("flush", "--to", f"{sink.name}:down", "--timeout", "0.5", path)
    sql(path, "UPDATE cursor SET attempts = 3")
    out = run("status", path).out
    assert re.search(r"pending: +2, the oldest for ", out)
    assert re.search(r"delivered: +5, the last .* ago", out)
    assert re.search(r"attempts: +3 at the head of the line", out)
    assert re.search(r"last error: .*nobody there", out)
    assert re.search(r"dead letters: +1; the first: Rejected: 550 no such user", out)
    assert re.search(r"holder: +nobody delivers now", out)
    assert all(len(line) <= 80 for line in out.splitlines() if path not in line)


def test_times_in_json_are_iso_8601_with_their_zone(journal, sink):
    """As in list and dead list."""
    path = journal(count=1)
    run("flush", "--to", f"{sink.name}:deliver", path)
    _, (state,) = run_json("status", "--json", path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", state["last_delivery"])


@pytest.mark.parametrize(
    ("note", "state", "says"),
    [
        ("delivering {now}", "delivering", "delivers"),
        ("delivering {long_ago}", "hung", "has waited for its target since"),
        ("waiting {soon}", "waiting", "waits before its next attempt"),
        ("", "delivering", "delivers"),
        ("dancing 1.5", "free", "nobody delivers now"),
    ],
)
def test_what_the_holder_does_is_told(journal, note, state, says):
    """From what it wrote into the lock file, whatever somebody else wrote there."""
    path = journal()
    lease = Lease(path)
    assert lease.acquire(until=time.monotonic() + 5, give_up=lambda: False)
    times = {"now": f"{time.time():.3f}", "long_ago": f"{time.time() - 300:.3f}", "soon": f"{time.time() + 20:.3f}"}
    with open(path + ".lock", "r+b") as file:
        file.truncate()
        file.write(f"{os.getpid()}\n{note.format(**times)}\n".replace("\n\n", "\n").encode())
    _, (found,) = run_json("status", "--json", path)
    assert found["lease_state"] == state
    out = run("status", path).out
    assert says in out
    assert ("next attempt: in 1" in re.sub(" +", " ", out)) == (state == "waiting")
    lease.release()


# --- monitors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        ((), 0, "OK"),
        (("--warn-pending", 10), 1, "WARNING"),
        (("--warn-pending", 11), 0, "OK"),
        (("--crit-pending", 10), 2, "CRITICAL"),
        (("--warn-pending", 1, "--crit-pending", 5), 2, "CRITICAL"),
        (("--warn-age", "0.001"), 1, "WARNING"),
        (("--crit-age", "1ms"), 2, "CRITICAL"),
        (("--warn-age", "1d"), 0, "OK"),
    ],
)
def test_check_follows_its_thresholds(journal, options, code, word):
    """Nagios codes 0, 1 and 2, by the number of pending entries and the age of the oldest."""
    path = journal(count=10)
    time.sleep(0.01)
    result = run("status", "--check", *options, path)
    assert result.code == code
    assert result.out.startswith(f"LASTWORDS {word} - ")
    assert len(result.out.splitlines()) == 1
    assert "'j.db pending'=10;" in result.out


def test_check_warns_of_dead_letters_and_drops(journal):
    """One dead letter or one drop is a warning, until the threshold is raised."""
    path = journal(count=0)
    sql(path, "UPDATE cursor SET dead = 1")
    assert run("status", "--check", path).code == 1
    assert run("status", "--check", "--warn-dead", "2", path).code == 0
    assert run("status", "--check", "--crit-dead", "1", path).code == 2
    sql(path, "UPDATE cursor SET dead = 0, dropped = 1")
    assert run("status", "--check", path).code == 1


def test_check_is_unknown_for_what_cannot_be_read_and_critical_for_damage(tmp_path, journal):
    """3 for a journal that is missing, 2 for one that is damaged; critical goes before unknown."""
    good = journal()
    (tmp_path / "bad.db").write_bytes(b"x" * 5000)
    assert run("status", "--check", good, "nope.db").code == 3
    assert run("status", "--check", tmp_path / "bad.db").code == 2
    assert run("status", "--check", "nope.db", good, tmp_path / "bad.db").code == 2


def test_check_never_prints_a_second_performance_section(tmp_path, journal):
    """A | in a name would begin performance data: it is replaced."""
    (tmp_path / "a|b.db").write_bytes(b"x" * 5000)
    out = run("status", "--check", journal(), tmp_path / "a|b.db").out
    assert out.count(" | ") == 1


# --- Prometheus -------------------------------------------------------------------------------------------------

SAMPLE = re.compile(r'(lastwords_[a-z_]+)\{journal="((?:[^"\\\n]|\\.)*)"\} (-?[0-9.e+]+)')


def test_prometheus_text_is_well_formed_and_true(tmp_path, journal):
    """Each metric has HELP and TYPE once, before its samples; labels are escaped; a broken journal is up 0."""
    odd = str(tmp_path / 'we"ird\\name.db')
    os.rename(journal(), odd)
    result = run("status", "--format", "prometheus", odd, "nope.db")
    assert result.code == 66
    samples, seen = {}, []
    for line in result.out.splitlines():
        if line.startswith("#"):
            kind, name = line.split()[1:3]
            seen.append((kind, name))
            continue
        name, label, value = SAMPLE.fullmatch(line).groups()
        assert ("TYPE", name) in seen
        samples[name, label] = float(value)
    assert len(seen) == len(set(seen))
    label = odd.replace("\\", "\\\\").replace('"', '\\"')
    assert samples["lastwords_up", label] == 1
    assert samples["lastwords_pending_entries", label] == 10
    assert samples["lastwords_up", str(tmp_path / "nope.db")] == 0


def test_output_replaces_the_file_at_once(tmp_path, journal):
    """--output writes beside the file and renames: readable by all, no half file, nothing left behind."""
    target = tmp_path / "out" / "lastwords.prom"
    target.parent.mkdir()
    target.write_text("old")
    inode = target.stat().st_ino
    assert run("status", "--format", "prometheus", "--output", target, journal()).code == 0
    assert target.stat().st_ino != inode
    assert target.stat().st_mode & 0o777 == 0o644
    assert "lastwords_up" in target.read_text()
    assert os.listdir(target.parent) == ["lastwords.prom"]


def test_output_through_a_symbolic_link_replaces_the_file_that_it_leads_to(tmp_path, journal):
    """The link stays, also one that leads to a link in another folder; one that leads nowhere yet makes the file."""
    (tmp_path / "out").mkdir()
    real = tmp_path / "out" / "real.prom"
    (tmp_path / "out" / "near").symlink_to("real.prom")
    (tmp_path / "far").symlink_to("out/near")
    path = journal()
    for content in (None, "old"):
        if content is not None:
            real.write_text(content)
        assert run("status", "--format", "prometheus", "--output", tmp_path / "far", path).code == 0
        assert "lastwords_up" in real.read_text()
    assert (tmp_path / "far").is_symlink() and (tmp_path / "out" / "near").is_symlink()
    assert sorted(os.listdir(tmp_path / "out")) == ["near", "real.prom"]


def test_output_to_a_fifo_is_written_to_it(tmp_path, journal):
    """A FIFO stays one, and whoever reads it gets the text."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = start("status", "--format", "prometheus", "--output", fifo, journal())
    with open(fifo) as reader:
        text = reader.read()
    assert finish(process).code == 0
    assert "lastwords_up" in text
    assert fifo.is_fifo()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_output_to_a_device_is_written_to_it(tmp_path, journal):
    """A terminal stays one."""
    master, slave = os.openpty()
    name = os.ttyname(slave)
    device = os.stat(name).st_rdev
    (tmp_path / "link").symlink_to(name)
    assert run("status", "--format", "prometheus", "--output", tmp_path / "link", journal(count=0)).code == 0
    assert b"lastwords_up" in os.read(master, 65536)
    assert stat.S_ISCHR(os.stat(name).st_mode) and os.stat(name).st_rdev == device
    assert (tmp_path / "link").is_symlink()
    os.close(master)
    os.close(slave)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc")
def test_output_to_dev_stdout_goes_where_stdout_goes(tmp_path, journal):
    """The file that the shell redirected to is appended to; another one in its place would leave the shell's behind."""
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")  # as /dev/stdout is
    target = tmp_path / "out.txt"
    with open(target, "a") as file:
        file.write("before\n")
        file.flush()
        inode = target.stat().st_ino
        assert spawn("status", "--json", "--output", tmp_path / "stdout", journal(), stdout=file).code == 0
    assert target.stat().st_ino == inode
    assert target.read_text().startswith("before\n[")


def test_output_to_a_folder_is_one_line(tmp_path, journal):
    """A folder is neither replaced nor written to."""
    result = run("status", "--json", "--output", tmp_path, journal())
    assert result.code == 78
    assert len(result.err.splitlines()) == 1 and "directory" in result.err


def test_output_into_a_folder_that_is_not_there_is_78(tmp_path, journal):
    """A wrong --output is bad configuration, in one line."""
    result = run("status", "--json", "--output", tmp_path / "nope" / "x.json", journal())
    assert result.code == 78
    assert len(result.err.splitlines()) == 1


def test_output_writes_json_too(tmp_path, journal):
    """Without a format the file is JSON."""
    assert run("status", "--output", tmp_path / "s.json", journal()).code == 0
    assert json.loads((tmp_path / "s.json").read_text())[0]["pending"] == 10


def test_forged_counts_are_damage_not_a_traceback(journal):
    """A cursor whose columns hold text is said to be damaged."""
    path = journal()
    sql(path, "UPDATE cursor SET delivered = 'many'")
    result = run("status", path)
    assert result.code == 65
    assert len(result.err.splitlines()) == 1


@pytest.mark.slow
def test_a_damaged_predecessor_is_told_until_it_is_removed(tmp_path, children):
    """A service found its journal damaged and set it aside: status and doctor say so with 65, a check warns."""
    path = tmp_path / "j.db"
    log = """
        import logging, sys
        from lastwords import DurableHandler
        log = logging.getLogger("app"); log.setLevel(1)
        log.addHandler(DurableHandler(None, sys.argv[1]))
        for i in range(500): log.info("m%d", i)
        log.handlers[0].close(); log.handlers[0]._engine.store.close()
    """
    children.run(log, path)
    assert run("status", path).code == 0
    with open(path, "r+b") as file:
        file.seek(4096 * 6)
        file.write(os.urandom(4096 * 8))
    children.run(log, path)
    sides = ("-wal", "-shm", ".salvage")
    (aside,) = [name for name in os.listdir(tmp_path) if ".damaged-" in name and not name.endswith(sides)]
    code, (state,) = run_json("status", "--json", path)
    assert code == 65
    assert state["set_aside"] == [str(tmp_path / aside)]
    assert state["salvaged"] + state["unreadable"] >= 400
    assert aside in run("status", path).out
    assert run("status", "--check", path).code == 2
    assert run("doctor", path).code == 65
    assert run("status", f"{path}*").out.count("pending:") == 1, "a pattern leaves it out"
    assert run("list", tmp_path / aside).code == 65
    for name in os.listdir(tmp_path):
        if ".damaged-" in name:
            os.unlink(tmp_path / name)
    assert run("status", path).code == 0
    assert run("doctor", path).code == 0
