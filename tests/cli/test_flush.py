"""`lastwords flush`: cron's verb. Many journals, one deadline, silence, and no fight with a live service."""

import contextlib
import json
import os
import pathlib
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from cli.tools import counts, finish, log_to, run, run_json, spawn, sql, start
from lastwords.delivery import lease


def test_delivers_settles_and_then_is_silent(journal, sink):
    """The first run delivers in order and says so in one line; the second has nothing to say."""
    path = journal()
    first = run("flush", "--to", f"{sink.name}:deliver", path)
    assert first.code == 0
    assert len(first.out.splitlines()) == 1
    assert "delivered 10" in first.out
    assert sink.messages() == [f"message {i}" for i in range(10)]
    again = run("flush", "--to", f"{sink.name}:deliver", path)
    assert (again.code, again.out, again.err) == (0, "", "")
    assert counts(path) == (0, 10, 0)


def test_quiet_says_only_what_is_wrong_and_verbose_says_all(journal, sink):
    """-q is silent about success, never about trouble; -v names also what had nothing to do."""
    path = journal()
    assert run("flush", "-q", "--to", f"{sink.name}:deliver", path).out == ""
    assert "delivered 0" in run("flush", "-v", "--to", f"{sink.name}:deliver", path).out
    stuck = journal("stuck.db")
    assert "10 remain" in run("flush", "-q", "--to", f"{sink.name}:down", "--timeout", "0.5", stuck).out


@pytest.mark.slow
def test_a_killed_service_loses_nothing(killed, sink):
    """What a SIGKILLed service had journaled arrives from cron, each entry once, with its id."""
    path = killed(count=300)
    assert spawn("flush", "--to", f"{sink.name}:deliver", path).code == 0
    assert sink.messages() == [f"message {i}" for i in range(300)]
    assert len({line.split()[0] for line in sink.lines()}) == 300


def test_entries_that_remain_are_75_with_the_reason(journal, sink):
    """A target that is down: nothing is lost or buried, the code is 75, and the line says why."""
    path = journal()
    result = run("flush", "--to", f"{sink.name}:down", "--timeout", "0.5", path)
    assert result.code == 75
    assert "10 remain" in result.out
    assert "ConnectionRefusedError: nobody there" in result.out
    assert counts(path) == (10, 0, 0)


FAILS_AT_FIRST = """
    calls = []
    def deliver(entries):
        calls.append(len(entries))
        if len(calls) <= 3:
            raise ConnectionRefusedError("nobody there")
    LOGGING = {"version": 1, "handlers": {"mail": {
        "()": "lastwords.DurableHandler", "target": deliver, "journal": "a.db", "retry_min": 0.01, "retry_max": 0.02}}}
"""


@pytest.mark.parametrize(("quiet", "times"), [((), 1), (("-q",), 0)])
def test_while_it_waits_for_a_target_that_is_down_it_says_so_once(journal, module, quiet, times):
    """At the first failed attempt: why, and when the next one is; not again, and not to cron."""
    journal("a.db")
    result = run("flush", *quiet, "--config", f"{module(FAILS_AT_FIRST)}:LOGGING", "a.db")
    assert (result.code, result.err.count("nobody there")) == (0, times), result
    assert result.err.count("cannot be delivered") == result.err.count("next attempt in ") == times


@pytest.mark.slow
def test_many_journals_of_one_target_that_is_down_are_one_line(journal, module):
    """Whose it is, is in it."""
    for name in ("a.db", "b.db"):
        journal(name)
    result = run("flush", "--to", f"{module(FAILS_AT_FIRST)}:deliver", "--timeout", "60", "a.db", "b.db")
    assert (result.code, result.err.count("nobody there")) == (0, 1), result
    assert "a.db: cannot be delivered: ConnectionRefusedError: nobody there; next attempt in " in result.err


def test_a_burial_is_65_and_the_rest_is_delivered(journal, sink):
    """A refused entry becomes a dead letter; the code says that somebody should look."""
    path = journal()
    result = run("flush", "--to", f"{sink.name}:refuse_5", path)
    assert result.code == 65
    assert "delivered 9, buried 1" in result.out
    assert counts(path) == (0, 9, 1)
    assert run("flush", "--to", f"{sink.name}:refuse_5", path).code == 0, "only the run that buried says 65"


def test_damaged_rows_are_buried_and_the_rest_is_delivered(journal, sink):
    """Rows of every kind of damage are buried with 65; they hold up nothing, and nothing of them is delivered."""
    path = journal(count=12)
    damage = (
        "payload = replace(payload, 'message', 'massage')",
        "payload = CAST(X'7B22FF' || CAST(payload AS BLOB) AS TEXT)",
        "payload = X'00FF'",
        "payload = '{}'",
        "created = 'soon'",
        "created = X'00'",
        "level = 'x'",
        "level = 1.5",
        "checksum = 'x'",
        "id = CAST(X'FF' AS TEXT), level = 7",
    )
    sql(path, *(f"UPDATE entries SET {change} WHERE seq = {i}" for i, change in enumerate(damage, 2)))
    result = run("flush", "--to", f"{sink.name}:deliver", path)
    assert result.code == 65, result
    assert sink.messages() == ["message 0", "message 11"]
    assert counts(path) == (0, 2, 10)
    assert run("dead", "list", path).code == 0
    assert run("dead", "list", "--json", path).code == 0


@pytest.mark.slow
def test_many_journals_share_one_deadline_and_none_starves(journal, sink, module):
    """The journal whose entries are stuck does not keep the others from their turn."""
    name = module(
        f"""
        from {sink.name} import deliver as good
        def deliver(entries):
            if entries[0].message.startswith("stuck"):
                raise ConnectionRefusedError("not these")
            good(entries)
        """
    )
    paths = [journal("a.db", text="stuck %d"), journal("b.db"), journal("c.db", text="stuck %d"), journal("d.db")]
    began = time.monotonic()
    code, jobs = run_json("flush", "--json", "--timeout", "4", "--to", f"{name}:deliver", *paths)
    assert time.monotonic() - began < 8
    assert code == 75
    assert [job["delivered"] for job in jobs] == [0, 10, 0, 10]
    assert [job["exit_code"] for job in jobs] == [75, 0, 75, 0]


@pytest.mark.slow
def test_a_target_that_comes_back_within_the_deadline_gets_everything(journal, sink, module):
    """flush backs off and tries again while there is time."""
    name = module(
        f"""
        from {sink.name} import deliver as good
        calls = []
        def deliver(entries):
            calls.append(1)
            if len(calls) < 3:
                raise ConnectionRefusedError("not yet")
            good(entries)
        """
    )
    path = journal()
    assert run("flush", "--to", f"{name}:deliver", "--timeout", "20", path).code == 0
    assert len(sink.lines()) == 10


@pytest.mark.slow
def test_beside_a_live_service_nothing_is_lost_or_doubled(tmp_path, children, sink):
    """cron's flush every 100 ms beside a service that logs, commit only: each entry arrives once, in order."""
    path = tmp_path / "live.db"
    service = children.start(
        """
        import logging, sys, time
        from lastwords import DurableHandler
        from lastwords.journal.line import Line
        log = logging.getLogger("app"); log.setLevel(1)
        log.addHandler(DurableHandler(None, sys.argv[1]))
        print("up", flush=True)
        for i in range(600): log.info("m%d", i); time.sleep(0.004)
        """,
        path,
    )
    service.stdout.readline()
    while service.poll() is None:
        result = spawn("flush", "--to", f"{sink.name}:deliver", path)
        assert result.code == 0, result
    assert service.communicate()[1] == b""
    assert spawn("flush", "--to", f"{sink.name}:deliver", path).code == 0
    assert sink.messages() == [f"m{i}" for i in range(600)]


def test_a_journal_whose_service_delivers_is_left_to_it(tmp_path, children, sink):
    """Another live process holds the lease: silent, 0, and nothing is delivered here."""
    path = tmp_path / "live.db"
    service = children.start(
        """
        import logging, sys, time
        from lastwords import DurableHandler
        def deliver(entries):
            print("delivering", flush=True); time.sleep(60)
        log = logging.getLogger("app"); log.setLevel(1)
        log.addHandler(DurableHandler(deliver, sys.argv[1]))
        log.info("mine"); time.sleep(60)
        """,
        path,
    )
    assert service.stdout.readline() == b"delivering\n"
    result = run("flush", "--to", f"{sink.name}:deliver", path)
    assert (result.code, result.out, result.err) == (0, "", "")
    assert (
        f"another process delivers (pid {service.pid})" in run("flush", "-v", "--to", f"{sink.name}:deliver", path).out
    )
    _, (job,) = run_json("flush", "--json", "--to", f"{sink.name}:deliver", path)
    assert (job["outcome"], job["lease_pid"]) == ("busy", service.pid)
    assert sink.lines() == []


@pytest.mark.slow
def test_takeover_delivers_in_place_of_a_stopped_holder_which_is_fenced_off(tmp_path, children, sink, poll):
    """A holder under SIGSTOP: --takeover delivers all; resumed, it changes nothing and nothing is lost."""
    path = tmp_path / "live.db"
    service = children.start(
        """
        import logging, os, signal, sys, threading, time
        from lastwords import DurableHandler
        logged, calls = threading.Event(), []
        def deliver(entries):
            logged.wait()
            calls.append(len(entries))
            if len(calls) == 2:
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # this thread, so that it goes no step further
        h = DurableHandler(deliver, sys.argv[1], batch_size=5)
        log = logging.getLogger("app"); log.setLevel(1); log.addHandler(h)
        for i in range(20): log.info("m%d", i)
        time.sleep(0.2)
        logged.set()
        print("drained", h.drain(60), h.stats().delivered, flush=True); os._exit(0)
        """,
        path,
    )
    stopped = f"/proc/{service.pid}/stat"
    assert poll(lambda: open(stopped).read().rpartition(")")[2].split()[0] == "T", 30)
    pending, delivered, _ = counts(path)
    assert pending == 20 - delivered
    left = run("flush", "--to", f"{sink.name}:deliver", path)
    assert left.code == 75 and f"kill -CONT {service.pid}" in left.out, "without --takeover it is left alone, and said"
    result = run("flush", "--takeover", "--to", f"{sink.name}:deliver", path)
    assert result.code == 0, result
    assert sink.messages() == [f"m{i}" for i in range(delivered, 20)]
    assert counts(path) == (0, 20, 0)
    os.kill(service.pid, signal.SIGCONT)
    out, _ = service.communicate(timeout=120)
    assert out == b"drained True 20\n", "the resumed holder marked nothing"
    assert counts(path) == (0, 20, 0)


def test_delivered_entries_are_pruned_as_the_service_would(journal, sink):
    """Without keep_delivered a flush prunes what it delivered; with it, entries stay that long."""
    lean = journal("lean.db", count=50)
    kept = journal("kept.db", count=50, keep_delivered=3600)
    old = journal("old.db", count=50, keep_delivered=3600, at=time.time() - 7200)
    assert run("flush", "--to", f"{sink.name}:deliver", lean, kept, old).code == 0

    def rows(path):
        return len(run("list", "--delivered", path).out.splitlines())

    assert (rows(lean), rows(kept), rows(old)) == (1, 50, 1), "the newest row always stays"


def test_a_handler_tells_the_command_line_how_long_it_keeps(tmp_path):
    """keep_delivered of the service is in the journal, so that `flush --to` does not prune what it wanted kept."""
    from lastwords import DurableHandler
    from lastwords.journal.line import Line

    handler = DurableHandler(None, tmp_path / "j.db", keep_delivered=86400)
    handler.close()
    with Line.open(tmp_path / "j.db") as opened:
        assert opened.get_meta("keep_delivered") == "86400"


def test_root_leaves_a_journal_of_another_user_usable(journal, sink):
    """Side files that root makes get the journal's owner and mode."""
    if os.geteuid() != 0:
        assert os.stat(journal()).st_uid == os.geteuid()  # nothing to show without root
        return
    path = journal()
    for name in os.listdir(os.path.dirname(path)):
        if name.startswith("j.db"):
            os.chown(os.path.join(os.path.dirname(path), name), 12345, 12345)
    for suffix in (".lock", ".commit"):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    assert run("flush", "--to", f"{sink.name}:deliver", path).code == 0
    left = [name for name in os.listdir(os.path.dirname(path)) if name.startswith("j.db")]
    assert {"j.db", "j.db.lock", "j.db.commit"} <= set(left)
    for name in left:
        status = os.stat(os.path.join(os.path.dirname(path), name))
        assert (status.st_uid, status.st_mode & 0o777) == (12345, 0o600), name


@pytest.mark.slow
def test_kill_9_in_the_middle_doubles_at_most_the_batch_in_flight(journal, sink, module, poll):
    """SIGKILL of a flush: the next one delivers the rest; what comes twice has the same id and is one batch at most."""
    name = module(
        f"""
        import time
        from {sink.name} import deliver as good
        def deliver(entries):
            good(entries); time.sleep(0.05)
        """
    )
    path = journal(count=1000)
    process = start("flush", "--to", f"{name}:deliver", path)
    assert poll(lambda: len(sink.lines()) > 200)
    process.kill()
    finish(process)
    assert spawn("flush", "--to", f"{sink.name}:deliver", path).code == 0
    ids = [line.split()[0] for line in sink.lines()]
    assert len(set(ids)) == 1000
    assert len(ids) - 1000 <= 100


# --- usage -------------------------------------------------------------------------------------------------------


def test_without_a_target_it_points_at_list(journal):
    """No --to, no --config: wrong usage, which names both and `list`."""
    result = run("flush", journal())
    assert result.code == 2
    assert "--to" in result.err
    assert "lastwords list" in result.err


def test_the_environment_names_the_target_and_config_overrides_it(journal, sink, monkeypatch, tmp_path):
    """$LASTWORDS_TO is the default of --to; --to and --config together are wrong usage."""
    monkeypatch.setenv("LASTWORDS_TO", f"{sink.name}:deliver")
    assert run("flush", journal()).code == 0
    assert len(sink.lines()) == 10
    assert run("flush", "--to", "a:b", "--config", "x.toml", "j.db").code == 2
    result = run("flush", "--config", "x.toml", "j.db")
    assert result.code == 78
    assert "x.toml" in result.err


def test_stdout_is_refused(journal):
    """stdout: is for looking; a crontab with it would settle what nobody reads."""
    path = journal()
    assert run("flush", "--to", "stdout:", path).code == 2
    assert counts(path)[0] == 10


@pytest.mark.parametrize("timeout", ["0", "-1", "soon"])
def test_a_bad_timeout_is_wrong_usage(journal, sink, timeout):
    """--timeout wants a span of time, more than nothing."""
    assert run("flush", "--timeout", timeout, "--to", f"{sink.name}:deliver", journal()).code == 2


@pytest.mark.slow
def test_the_current_folder_is_on_the_import_path_as_for_gunicorn(journal, sink):
    """The console script finds a module of the folder it is run in, though its own sys.path[0] is elsewhere."""
    script = os.path.join(os.path.dirname(sys.executable), "lastwords")
    done = subprocess.run(
        [script, "flush", "--to", f"{sink.name}:deliver", journal()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(sink.lines()) == 10


def test_a_directory_of_journals_logged_meanwhile(journal, sink, tmp_path):
    """A quoted pattern is expanded by lastwords itself; each journal it matches is delivered."""
    for name in ("a.db", "b.db", "c.db"):
        journal(name, count=3)
    assert run("flush", "--to", f"{sink.name}:deliver", str(tmp_path / "*.db")).code == 0
    assert len(sink.lines()) == 9
    log_to(tmp_path / "b.db", 1)
    assert run("flush", "--to", f"{sink.name}:deliver", str(tmp_path / "*.db"), str(tmp_path / "b.db")).code == 0
    assert len(sink.lines()) == 10


@pytest.mark.slow
def test_the_time_that_a_hung_target_took_is_told(journal, sink):
    """What is left behind inside the target had its time too; the control is a target that answers at once."""
    path = journal(count=1)
    hung = spawn("flush", "--json", "--to", f"{sink.name}:hang", "--timeout", "1", path)
    assert hung.code == 75
    took = json.loads(hung.out)[0]["seconds"]
    assert took > 1
    text = spawn("replay", "--level", "debug", "--to", f"{sink.name}:hang", "--timeout", "1", path).out
    told = re.search(r"in ([\d.]+) s; last error: the target did not return in time", text)
    assert told and float(told[1]) >= 1, text
    quick = spawn("flush", "--json", "--to", f"{sink.name}:deliver", path)
    assert 0 < json.loads(quick.out)[0]["seconds"] < took


def test_one_entry_remains_and_two_remain(journal, sink):
    """Grammar: a verb has a number too."""
    for count, says in ((1, ", 1 remains in"), (2, ", 2 remain in")):
        path = journal(f"{count}.db", count=count)
        assert says in run("flush", "--to", f"{sink.name}:down", "--timeout", "0.5", path).out
    assert "1 entry and 0 dead letters" in run("doctor", "1.db").out


def test_a_damaged_journal_whose_service_is_gone_is_salvaged(tmp_path, journal):
    """By the command that `doctor` names: what can be read is delivered, and it says 65 until somebody has looked."""
    path = pathlib.Path(journal(count=2000))
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = path.read_bytes()
    leaf = [at for at in range(0, len(raw), 4096) if raw[at] == 13][-5]
    path.write_bytes(raw[:leaf] + b"\xff" * 512 + raw[leaf + 512 :])
    assert "lastwords flush" in run("doctor", path).out
    assert run("flush", path, "--to", f"file:{tmp_path}/out").code == 65
    assert 1900 < len((tmp_path / "out").read_text().splitlines()) < 2000
    assert run("status", path).code == 65
    assert run("flush", path, "--to", f"file:{tmp_path}/out").code == 0


@pytest.mark.slow
def test_a_person_is_told_that_a_live_service_keeps_what_waits(tmp_path, children, sink, poll):
    """Its target is down, another one is up: silence would be taken for a mail that is out. Control: cron is not told."""
    path = tmp_path / "live.db"
    service = children.start(
        """
        import logging, sys, time
        from lastwords import DurableHandler
        def deliver(entries):
            raise ConnectionRefusedError("down")
        log = logging.getLogger("app"); log.setLevel(1)
        log.addHandler(DurableHandler(deliver, sys.argv[1], retry_min=60.0))
        log.info("mine"); time.sleep(120)
        """,
        path,
    )
    assert poll(lambda: path.exists() and (found := lease.look(str(path))) and found.state == "waiting", 30)
    arguments = ("flush", "--to", f"{sink.name}:deliver", path)
    assert (run(*arguments).code, run(*arguments).out) == (0, "")
    ours, theirs = pty.openpty()
    process = start(*arguments, stderr=theirs)
    os.close(theirs)
    out, _ = process.communicate(timeout=120)
    os.close(ours)
    assert "1 remains" in out
    assert f"another process delivers (pid {service.pid}), and waits for its target: --takeover delivers" in out
    assert sink.lines() == []
