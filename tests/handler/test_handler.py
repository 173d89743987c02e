"""DurableHandler as a user meets it: construction, the caller's path, drain, flush, close, stats."""

import logging
import logging.config
import os
import signal
import stat
import threading
import time
import warnings
from datetime import timedelta

import pytest

import lastwords
from lastwords import DurableHandler, Journal, JournalError, Rejected, TryAgain
from lastwords.journal.line import Line


class Sink:
    """A callable target that keeps what it is given."""

    def __init__(self):
        self.entries = []

    def __call__(self, entries):
        self.entries.extend(entries)

    @property
    def messages(self):
        return [entry.message for entry in self.entries]


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def make(tmp_path):
    made = []

    def make(target, name="j.db", **knobs):
        handler = DurableHandler(target, tmp_path / name, **knobs)
        logger = logging.Logger(f"test{len(made)}", 1)
        logger.addHandler(handler)
        made.append(handler)
        return handler, logger

    yield make
    for handler in made:
        handler.close()


def test_public_names_are_those_of_the_design():
    """Nothing else is promised."""
    assert set(lastwords.__all__) == {
        "DurableHandler", "Journal", "Entry", "Target", "Rejected", "TryAgain", "JournalError", "Stats",
    }  # fmt: skip


def test_records_arrive_in_order_with_their_ids(make, sink):
    """drain() is True when all that was committed before it is settled."""
    handler, log = make(sink)
    for i in range(500):
        log.info("m%d", i)
    assert handler.drain(60) is True
    assert sink.messages == [f"m{i}" for i in range(500)]
    assert len({entry.id for entry in sink.entries}) == 500
    stats = handler.stats()
    assert (stats.pending, stats.delivered, stats.dead, stats.dropped, stats.buffered) == (0, 500, 0, 0, 0)
    assert stats.oldest_age is None
    assert stats.last_delivery == pytest.approx(time.time(), abs=10)


def test_a_record_is_committed_before_the_call_returns(make, tmp_path):
    """Another connection sees the row the moment the logging call has returned, with no courier at all."""
    _, log = make(None)
    with Journal(tmp_path / "j.db") as journal:
        for i in range(20):
            log.info("m%d", i)
            assert journal.stats().pending == i + 1


def test_drain_without_a_target_waits_for_whoever_delivers(make, sink, tmp_path):
    """With target None, drain() is False until a job of somebody else has settled the entries."""
    handler, log = make(None)
    log.info("m0")
    assert handler.drain(0.1) is False
    assert handler.stats().pending == 1
    deliver_now(tmp_path / "j.db", sink)
    assert handler.drain(1) is True


def deliver_now(path, target):
    from lastwords.delivery.lease import Lease
    from lastwords.delivery.loop import Delivery
    from lastwords.runtime.bell import Bell
    from lastwords.targets.contract import CallableTarget

    with Line.open(path) as journal:
        return Delivery(journal, CallableTarget(target), Lease(journal.path), Bell()).drain()


def test_one_record_at_a_time_for_a_handler(make, tmp_path):
    """A wrapped handler gets one record per call and formats it itself; setFormatter goes to it."""
    path = tmp_path / "out.log"
    handler, log = make(logging.FileHandler(path))
    handler.setFormatter(logging.Formatter("%(levelname)s|%(name)s|%(message)s"))
    log.warning("a %s", "b")
    assert handler.drain(60)
    assert path.read_text() == "WARNING|test0|a b\n"


def test_levels_and_filters_of_proxy_and_target_run_in_the_caller(make, tmp_path):
    """A context filter on the target sees the caller's thread, and what it refuses never enters the journal."""
    threads = []

    class Context(logging.Filter):
        def filter(self, record):
            threads.append(threading.get_ident())
            record.request = "req-7"
            return "secret" not in record.getMessage()

    target = logging.FileHandler(tmp_path / "out.log")
    target.setLevel("INFO")
    target.addFilter(Context())
    target.setFormatter(logging.Formatter("%(request)s %(message)s"))
    handler, log = make(target, level="DEBUG")
    handler.addFilter(lambda record: not record.getMessage().startswith("noise"))
    log.debug("below the target's level")
    log.info("secret")
    log.info("noise")
    log.info("kept")
    assert handler.drain(60)
    assert (tmp_path / "out.log").read_text() == "req-7 kept\n"
    assert set(threads) == {threading.get_ident()}
    assert handler.stats().delivered == 1


def test_the_callers_record_is_not_mutated(make, sink):
    """Handlers that come after ours see the record as it was made."""
    handler, log = make(sink)
    seen = []

    class After(logging.Handler):
        def emit(self, record):
            seen.append(dict(record.__dict__))

    log.addHandler(After())
    try:
        raise ValueError("x")
    except ValueError:
        log.exception("m %s", ["mutable"], extra={"k": {1, 2}})
    assert handler.drain(60)
    assert seen[0]["args"] == (["mutable"],)
    assert seen[0]["exc_text"] is None
    assert "message" not in seen[0]
    assert seen[0]["k"] == {1, 2}


def test_a_str_that_raises_is_journaled_with_a_marker(make, sink):
    """The call returns normally."""

    class Bad:
        def __str__(self):
            raise RuntimeError("no")

        __repr__ = __str__

    handler, log = make(sink)
    log.info("value %s", Bad())
    log.info(Bad())
    assert handler.drain(60)
    assert len(sink.entries) == 2


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("sync_level", "LOUD"),
        ("level", "LOUD"),
        ("sync_interval", 0),
        ("sync_interval", "1"),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("linger", -1),
        ("retry_min", 0),
        ("retry_max", float("inf")),
        ("suspect_after", 0),
        ("max_age", -1),
        ("max_bytes", 10),
        ("memory_limit", 0),
        ("keep_delivered", -1),
        ("drain_timeout", float("nan")),
        ("mode", 0o7777),
        ("mode", "rw"),
        ("ignore_loggers", "one"),
    ],
)
def test_a_bad_value_names_the_knob_and_the_value(tmp_path, knob, value):
    """ValueError with the knob, the value and what is allowed; nothing is created."""
    with pytest.raises(ValueError, match=knob) as caught:
        DurableHandler(None, tmp_path / "j.db", **{knob: value})
    assert repr(value) in str(caught.value) or "such as" in str(caught.value)
    assert not (tmp_path / "j.db").exists()


def test_an_unknown_knob_is_a_type_error(tmp_path):
    """No **kwargs: a typo does not pass."""
    with pytest.raises(TypeError, match="batchsize"):
        DurableHandler(None, tmp_path / "j.db", batchsize=1)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_bad_path_is_a_value_error(path):
    """Before anything is opened."""
    with pytest.raises(ValueError, match="journal"):
        DurableHandler(None, path)


def test_times_may_be_timedeltas_and_levels_numbers(make, sink):
    """As the design says."""
    handler, log = make(
        sink, sync_interval=timedelta(milliseconds=50), sync_level=30, drain_timeout=timedelta(seconds=2)
    )
    log.info("x")
    assert handler.drain(timedelta(seconds=10))


def test_journals_that_cannot_be_used_say_what_to_do(tmp_path):
    """JournalError carries path and hint."""
    with pytest.raises(JournalError) as caught:
        DurableHandler(None, tmp_path / "missing" / "j.db")
    assert caught.value.path == str(tmp_path / "missing" / "j.db")
    assert "create" in caught.value.hint
    with pytest.raises(JournalError, match="not a regular file"):
        DurableHandler(None, tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with pytest.raises(JournalError, match="symbolic link"):
        DurableHandler(None, tmp_path / "link")
    (tmp_path / "other.db").write_bytes(b"SQLite format 3\0" + bytes(4080))
    with pytest.raises(JournalError):
        DurableHandler(None, tmp_path / "other.db")


def test_files_are_private_whatever_the_umask_is(make, tmp_path):
    """0600, or mode; the side files follow the journal."""
    old = os.umask(0)
    try:
        handler, log = make(lambda entries: None)
        log.error("x")
        handler.drain(10)
        make(None, "shared.db", mode="660")[1].error("x")
    finally:
        os.umask(old)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert {mode for name, mode in modes.items() if name.startswith("j.db")} == {0o600}
    assert {mode for name, mode in modes.items() if name.startswith("shared.db")} == {0o660}


def test_two_handlers_on_one_journal_in_one_process_are_refused(make, sink, tmp_path):
    """Also through another name of the same file; after close it is free."""
    handler, _ = make(sink)
    with pytest.raises(ValueError, match="already has an open DurableHandler"):
        DurableHandler(sink, tmp_path / "j.db")
    os.link(tmp_path / "j.db", tmp_path / "same.db")
    with pytest.raises(ValueError, match="already has an open DurableHandler"):
        DurableHandler(sink, tmp_path / "same.db")
    os.unlink(tmp_path / "same.db")
    handler.close()
    make(sink)[0].close()


def test_a_second_handler_is_refused_also_when_the_file_was_removed(make, sink, tmp_path, poll, capfd):
    """Before the first has made it anew and after it, by any name of its folder; what was its file is free then."""
    handler, log = make(sink)
    (tmp_path / "link").symlink_to(tmp_path)
    os.rename(tmp_path / "j.db", tmp_path / "old.db")
    for _ in range(2):
        for name in ("j.db", "link/j.db"):
            with pytest.raises(ValueError, match="already has an open DurableHandler"):
                DurableHandler(sink, tmp_path / name)
        log.error("m0")
        handler.flush()
        assert (tmp_path / "j.db").exists()
    said = []
    assert poll(lambda: said.append(capfd.readouterr().err) or "were copied" in "".join(said))  # and it is closed
    make(sink, "old.db")[0].close()
    handler.close()
    make(sink)[0].close()
    assert sink.messages == ["m0", "m0"]


def test_close_is_idempotent_and_a_later_record_is_still_journaled(make, sink):
    """And delivered, by this run or the next."""
    handler, log = make(sink)
    log.info("m0")
    handler.close()
    handler.close()
    assert sink.messages == ["m0"]
    log.info("m1")
    stats = handler.stats()
    assert stats.pending + stats.delivered == 2, "it may be delivered by now: a handler that is logged to is open again"
    handler.close()
    handler2, _ = make(sink)
    assert handler2.drain(60)
    assert sink.messages == ["m0", "m1"]


def test_flush_never_waits_for_the_target(make):
    """It syncs and wakes."""
    hang = threading.Event()
    handler, log = make(lambda entries: hang.wait(30), drain_timeout=0.1)
    log.info("x")
    began = time.monotonic()
    handler.flush()
    assert time.monotonic() - began < 15
    assert handler.drain(0.2) is False
    hang.set()


def test_what_the_target_logs_enters_no_journal(make):
    """The guard is module-wide: two proxies do not play ping-pong with one record."""
    calls = []

    def chatty(entries):
        calls.append(len(entries))
        log.error("from the target")
        other_log.error("from the target")

    handler, log = make(chatty)
    other, other_log = make(chatty, "other.db")
    log.info("one")
    assert handler.drain(60), (calls, handler.stats(), vars(handler._engine.courier))
    assert other.drain(60)
    time.sleep(0.1)
    assert sum(calls) == 1
    assert handler.stats().delivered == 1
    assert other.stats().delivered == 0


def test_ignored_loggers_are_not_taken(make, sink):
    """For client libraries with threads of their own; children included, neighbours not."""
    handler, log = make(sink, ignore_loggers=["urllib3"])
    for name in ("urllib3", "urllib3.connectionpool", "urllib33"):
        handler.handle(logging.LogRecord(name, 20, "", 1, name, (), None))
    assert handler.drain(60)
    assert sink.messages == ["urllib33"]


def test_the_contract_of_a_callable(make):
    """TryAgain(accepted=n) settles n; Rejected(entries=) buries the named ones; the rest is accepted."""
    script, seen = [], []

    def target(entries):
        seen.append([e.message for e in entries])
        if script:
            script.pop(0)(entries)

    def first_two(entries):
        raise TryAgain("busy", after=0.05, accepted=2)

    def refuse_m3(entries):
        raise Rejected("malformed", entries=[e for e in entries if e.message == "m3"])

    script += [first_two, refuse_m3]
    handler, log = make(target, linger=60, retry_min=0.01)
    for i in range(5):
        log.info("m%d", i)
    assert handler.drain(60)
    assert seen == [["m0", "m1", "m2", "m3", "m4"], ["m2", "m3", "m4"]]
    stats = handler.stats()
    assert (stats.delivered, stats.dead, stats.pending) == (4, 1, 0)
    with Journal(handler.journal) as journal:
        (letter,) = journal.dead_letters()
        assert "malformed" in letter.error
        assert journal.retry_dead() == 1
    handler.flush()
    assert handler.drain(60)
    assert seen[-1] == ["m3"]
    assert handler.stats().dead == 0


def test_an_outage_is_retried_with_backoff_and_counted(make):
    """Nothing is lost, retries and last_error say what happened."""
    failures = [ConnectionRefusedError("down")] * 3
    got = []

    def target(entries):
        if failures:
            raise failures.pop()
        got.extend(entries)

    handler, log = make(target, retry_min=0.02, retry_max=0.05)
    log.info("x")
    assert handler.drain(60)
    assert len(got) == 1
    assert handler.stats().retries == 3
    assert "ConnectionRefusedError: down" in handler.stats().last_error


def test_max_age_buries_what_waited_too_long(make):
    """With the last error; redrivable."""

    def target(entries):
        raise ConnectionRefusedError

    handler, log = make(target, retry_min=0.02, retry_max=0.05, max_age=0.3)
    log.info("x")
    assert handler.drain(60)
    with Journal(handler.journal) as journal:
        assert "max_age" in journal.dead_letters()[0].error


def test_another_destination_warns(make, sink, tmp_path):
    """The journal remembers where its entries went."""
    make(logging.FileHandler(tmp_path / "a.log"))[0].close()
    with pytest.warns(RuntimeWarning, match="was used for"):
        make(sink)[0].close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(sink)[0].close()


def test_dict_config_builds_it(tmp_path):
    """Nested target, formatter and filter by name, on a dict that logging.config understands."""
    out, journal = tmp_path / "out.log", tmp_path / "j.db"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"brief": {"format": "%(levelname)s:%(message)s"}},
            "handlers": {
                "durable": {
                    "class": "lastwords.DurableHandler",
                    "target": {"class": "logging.FileHandler", "filename": str(out), "formatter": "brief"},
                    "journal": str(journal),
                    "level": "INFO",
                }
            },
            "loggers": {"dictconf": {"handlers": ["durable"], "level": "DEBUG", "propagate": False}},
        }
    )
    log = logging.getLogger("dictconf")
    log.debug("no")
    log.info("yes")
    (handler,) = log.handlers
    assert handler.drain(60)
    handler.close()
    log.handlers.clear()
    assert out.read_text() == "INFO:yes\n"


def test_a_warning_that_is_an_error_leaves_nothing_open(tmp_path):
    """`-W error` makes a failure of what the constructor only warns of."""
    target = logging.handlers.SysLogHandler(("127.0.0.1", 9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="UDP"):
            DurableHandler(target, tmp_path / "j.db")
    with pytest.warns(RuntimeWarning, match="UDP"):  # else: already has an open DurableHandler
        DurableHandler(target, tmp_path / "j.db").close()


LOCKED = """
import logging, os, sqlite3, subprocess, sys
from lastwords import DurableHandler
patience = 2.0 if sys.argv[2] == "30" else 20.0
handler = DurableHandler(None, sys.argv[1], drain_timeout=patience); log = logging.Logger("t"); log.addHandler(handler)
log.error("first")
code = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE');"
code += "print(1, flush=True); sys.stdin.readline(); time.sleep(float(sys.argv[2]))"
pipe = subprocess.PIPE
locker = subprocess.Popen([sys.executable, "-c", code, sys.argv[1], sys.argv[2]], stdin=pipe, stdout=pipe)
locker.stdout.readline()
log.error("second")
log.error("third")
assert handler.stats().buffered == 2
locker.stdin.write(b"go on\\n"); locker.stdin.close()
if sys.argv[2] == "30":
    import atexit
    atexit._run_exitfuncs()
    locker.kill()
locker.stdout.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", ["0.5", "30"])
def test_the_exit_waits_for_a_locked_journal_and_says_once_what_is_lost(children, tmp_path, seconds):
    """What is only in memory dies with the process, and the lock may go within drain_timeout."""
    _, err, took = children.run(LOCKED, tmp_path / "j.db", seconds)
    with Journal(tmp_path / "j.db") as journal:
        seen = [entry.message for entry in journal.entries()]
    if seconds == "0.5":
        assert seen == ["first", "second", "third"]
        assert "lost with" not in err
        assert "none is lost" in err
    else:
        assert seen == ["first"], "the control: that long nobody waits"
        assert err.count("2 records are only in memory, and lost with this process") == 1
        assert took < 25


@pytest.mark.slow
def test_ctrl_c_at_the_exit_is_no_traceback(children, tmp_path):
    """Somebody does not want to wait for a hanging target."""
    code = """
    import sys, time, logging
    from lastwords import DurableHandler; from lastwords.delivery.courier import Courier
    join = Courier.join
    Courier.join = lambda *args: (print("waits", flush=True), join(*args))
    handler = DurableHandler(lambda entries: time.sleep(60), sys.argv[1], drain_timeout=30)
    log = logging.Logger("t"); log.addHandler(handler)
    log.error("x")
    """
    process = children.start(code, tmp_path / "j.db")
    assert process.stdout.readline() == b"waits\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert b"interrupted: what is not delivered stays in the journal" in err
    assert b"Traceback" not in err
