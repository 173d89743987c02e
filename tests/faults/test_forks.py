"""Forks under load: no hang, no loss, no lock that is believed but not held."""

import os
import signal
import sqlite3

import pytest

from lastwords import Journal
from lastwords.delivery.lease import holder

FORKS = """
import logging, logging.config, os, sys, threading, time
from lastwords import DurableHandler
journal, count = sys.argv[1], int(sys.argv[2])
config = {"version": 1, "disable_existing_loggers": False, "loggers": {"other": {"level": "INFO"}}}
# What is waited for longer goes into memory, which is said: here nobody is stopped, but the machine may be busy.
from lastwords.journal.store import Store; Store.__init__.__kwdefaults__["lock_timeout"] = 30.0
h = DurableHandler(None, journal); log = logging.Logger("s"); log.addHandler(h)
stop = threading.Event(); logged = [0] * 3
def busy(t):
    while not stop.is_set():
        log.info("thread-%d-%d", t, logged[t]); logged[t] += 1
def configure():
    while not stop.is_set():
        logging.config.dictConfig(config); time.sleep(0.001)
threads = [threading.Thread(target=busy, args=(t,), daemon=True) for t in range(3)] + [threading.Thread(target=configure, daemon=True)]
for t in threads: t.start()
for i in range(count):
    pid = os.fork()
    if pid == 0:
        log.error("child-%d", i)
        os._exit(0)
    end = time.monotonic() + 20
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            print("HUNG", i, flush=True); os.kill(pid, 9); os._exit(1)
        time.sleep(0.0005)
stop.set()
for t in threads: t.join(10)
print(*logged, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.campaign)])
def test_forks_in_a_busy_process_hang_nothing_and_lose_nothing(children, tmp_path, count):
    """Forks while three threads log and a fourth runs dictConfig: each child's record and each thread's are there."""
    out, err, _ = children.run(FORKS, tmp_path / "j.db", count, timeout=170)
    assert "lastwords:" not in err
    assert "Traceback" not in err  # Python 3.12 and newer warn of forks in threaded processes
    logged = [int(n) for n in out.split()]
    with sqlite3.connect(tmp_path / "j.db") as conn:
        messages = [m for (m,) in conn.execute("SELECT message FROM records ORDER BY seq")]
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert {m for m in messages if m.startswith("child")} == {f"child-{i}" for i in range(count)}
    for t in range(3):
        assert [m for m in messages if m.startswith(f"thread-{t}-")] == [f"thread-{t}-{i}" for i in range(logged[t])]
    assert len(messages) == count + sum(logged)


SURVIVOR = """
import logging, os, subprocess, sys, time
from lastwords import DurableHandler
journal, keep = sys.argv[1], sys.argv[2] == "keep"
h = DurableHandler(None, journal); log = logging.Logger("s"); log.addHandler(h)
log.info("parent")
if keep:  # the negative control: the connection stays open over the fork
    from lastwords.journal.commit_lock import CommitLock
    from lastwords.journal.store import Store
    Store.before_fork = lambda self: None
    Store.after_fork_in_child = lambda self: self.__dict__.update(_inherited=self._conn, _conn=None, _full=None, commit_lock=CommitLock(self.path, 1))
if os.fork(): os._exit(0)
time.sleep(0.2)
for i in range(50):
    log.info("child %d", i)
# What cron does meanwhile: open, work, close as the last user it believes to be.
subprocess.run([sys.executable, "-c", "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
    "c.execute('SELECT count(*) FROM entries').fetchone(); c.close()", journal], check=True)
for i in range(50, 100):
    log.info("child %d", i)
print("done", flush=True)
os._exit(0)
"""


def survivors(children, tmp_path, how):
    children.run(SURVIVOR, tmp_path / "j.db", how, check=None)
    with sqlite3.connect(tmp_path / "j.db") as conn:
        return conn.execute("SELECT count(*) FROM entries").fetchone()[0]


@pytest.mark.slow
def test_a_child_that_outlives_its_parent_keeps_its_records(children, tmp_path):
    """Daemonizing, then a visit from cron: 101 acknowledged, 101 there."""
    assert survivors(children, tmp_path, "close") == 101


@pytest.mark.slow
def test_a_connection_kept_over_a_fork_loses_records(children, tmp_path):
    """The negative control: SQLite believes that the child still holds the parent's locks."""
    assert survivors(children, tmp_path, "keep") < 101


HELD = """
import logging, os, subprocess, sys, threading, time
from lastwords import DurableHandler
started = threading.Event()
def hang(entries): started.set(); time.sleep(100)
log = logging.Logger("s"); log.addHandler(DurableHandler(hang, sys.argv[1]))
log.error("m"); started.wait(30)
if sys.argv[2] == "fork":
    if os.fork() == 0: time.sleep(100); os._exit(0)
else:
    subprocess.Popen(["sleep", "100"], close_fds=False)
print("started", flush=True); time.sleep(100)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fork", "subprocess with inherited descriptors"])
def test_a_child_does_not_hold_its_killed_parents_lease(children, tmp_path, poll, how):
    """A child that lives on after its parent was killed while delivering must not keep the lease."""
    child = children.start(HELD, tmp_path / "j.db", how, start_new_session=True)
    assert child.stdout.readline() == b"started\n"
    assert holder(str(tmp_path / "j.db")) == child.pid
    child.kill()
    child.wait()
    try:
        assert poll(lambda: holder(str(tmp_path / "j.db")) is None, 30)
    finally:
        os.killpg(child.pid, signal.SIGKILL)


AMID = """
import logging, os, sys
where, path = sys.argv[1:]
log = logging.Logger("t", 1)
def last_words():
    if not armed:
        return
    log.info("info")
    log.error("amid the fork")
    if where == "parent goes on":
        return
    os.write(1, b"logged")
    os._exit(0)
armed = False
# Registered before lastwords' own hooks, so it runs while those hold everything closed.
os.register_at_fork(**{"after_in_child" if where == "child" else "before": last_words})
from lastwords import DurableHandler
log.addHandler(DurableHandler(None, path))
log.info("before")
armed = True
child = os.fork()
armed = False
log.info("after")
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
os.write(1, b"logged")
os._exit(0)
"""


@pytest.mark.parametrize("where", ["parent", "child", "parent goes on"])
def test_a_record_logged_amid_a_fork_is_there_when_the_call_returns(children, tmp_path, where):
    """A signal handler may run while the fork hooks have every connection closed, and may end the process."""
    process = children.start(AMID, where, tmp_path / "j.db")
    out, err = process.communicate(timeout=120)
    assert out == b"logged" * (2 if where == "child" else 1), err
    with Journal(tmp_path / "j.db") as journal:
        seen = [entry.message for entry in journal.entries()]
    # In "child" the parent logs "after", in "parent goes on" both do.
    assert seen[:1] == ["before"]
    assert seen.count("info") == seen.count("amid the fork") == 1
    assert seen.count("after") == {"parent": 0, "child": 1, "parent goes on": 2}[where]


NESTED = """
import logging, os, signal, sys, threading, time
from lastwords import DurableHandler; from lastwords.runtime import fork as fork_hook
handler = DurableHandler(None, sys.argv[1]); log = logging.Logger("t"); log.addHandler(handler)
forks = 0
def fork(*_):
    global forks
    if os.fork() == 0:
        os._exit(0)
    forks += 1
    os.wait()
if sys.argv[2] == "nested":
    # Registered after ours, so it runs before: and what it starts is over before ours goes on. Then amid ours.
    real = handler._engine.store.before_fork
    def before_fork():
        type(handler._engine.store).before_fork = lambda self: real()
        fork()
        real()
    type(handler._engine.store).before_fork = lambda self: before_fork()
fork()
def free(lock):
    got = []
    thread = threading.Thread(target=lambda: got.append(lock.acquire(timeout=2)))
    thread.start(); thread.join(5)
    return got == [True]
print(forks, free(handler._engine.store.lock), free(logging._lock), free(fork_hook._locks.fds), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(("how", "forks"), [("nested", 2), ("plain", 1)])
def test_a_signal_handler_that_forks_amid_a_fork(children, tmp_path, how, forks):
    """A prefork master that starts a worker anew on SIGCHLD: no lock stays behind."""
    out, err, _ = children.run(NESTED, tmp_path / "j.db", how)
    assert out.split() == [str(forks), "True", "True", "True"], err


@pytest.mark.slow
def test_a_fork_while_a_journal_is_opened_takes_no_descriptor_along(children, tmp_path):
    """The child would believe in locks that it does not have: 111 records were acknowledged and 11 survived."""
    code = """
    import os, sys, threading, time
    from lastwords import DurableHandler
    from lastwords.journal import continuity
    opened, go = threading.Event(), threading.Event()
    real = continuity.go_on
    def slow(*args):
        real(*args)
        opened.set(); go.wait(0.5)
    continuity.go_on = slow
    made = []
    maker = threading.Thread(target=lambda: made.append(DurableHandler(None, sys.argv[1])))
    maker.start(); opened.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(sum("/j.db" in os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd")
                     if os.path.lexists("/proc/self/fd/" + fd)))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    maker.join(10)
    os._exit(0)
    """
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("lists descriptors in Linux's /proc")
    out, err, _ = children.run(code, tmp_path / "j.db")
    assert out == "0\n", err


def test_a_child_keeps_no_descriptor_of_the_wal(children, tmp_path):
    """The keeper has one of its own for a moment, to sync or to look; a fork may fall into it."""
    code = """
    import os, sys
    from lastwords.journal import files, wal
    from lastwords.journal.store import Store
    store = Store(sys.argv[1])
    def forks(*args):
        assert any(os.readlink("/proc/self/fd/" + fd).endswith("-wal") for fd in map(str, range(3, 256))
                   if os.path.lexists("/proc/self/fd/" + fd))
        child = os.fork()
        if child == 0:
            os._exit(sum("-wal" in os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd")
                         if os.path.lexists("/proc/self/fd/" + fd)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        return 0
    wal._fill = wal._look_ahead = files.sync_descriptor = forks
    for reads in (wal.fill, wal.look_ahead, wal.sync):
        with store.lock, store.writing() as conn:  # a fork closes it, and with it goes the -wal
            conn.execute("INSERT OR REPLACE INTO meta VALUES ('key', 'value')")
        reads(store)
    """
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("lists descriptors in Linux's /proc")
    out, err, _ = children.run(code, tmp_path / "j.db")
    assert out.split() == ["0", "0", "0"], err


@pytest.mark.slow
def test_no_lock_is_left_to_a_thread_that_the_child_does_not_have(children, tmp_path):
    """A journal opened by another thread, or being made after the fork has looked who takes part in it."""
    code = """
    import os, signal, sys, threading
    from lastwords import DurableHandler
    from lastwords.journal.sqlite_files import OPENING
    from lastwords.runtime.lock import new_lock
    nobodys, taken, go = new_lock(), threading.Event(), threading.Event()
    def hold():
        with nobodys, OPENING:
            taken.set(); go.wait(0.3)
        with nobodys: go.wait(20)
    threading.Thread(target=hold, daemon=True).start(); taken.wait(10)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        with nobodys:
            DurableHandler(None, sys.argv[1]).close()
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)
    """
    out, err, _ = children.run(code, tmp_path / "j.db")
    assert out == "0\n", err


def test_a_rescue_that_fails_at_a_fork_leaves_nothing_open(children, tmp_path):
    """The journal was replaced by something that cannot be opened: the child must not get the old connection."""
    code = """
    import logging, os, sys
    from lastwords import DurableHandler
    handler = DurableHandler(None, sys.argv[1]); log = logging.Logger("t"); log.addHandler(handler)
    log.error("x")
    with handler._engine.store.lock:  # at once, as far as the keeper can tell
        os.unlink(sys.argv[1]); os.mkdir(sys.argv[1])
    child = os.fork()
    if child == 0:
        os._exit(handler._engine.store._conn is not None)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)
    """
    out, err, _ = children.run(code, tmp_path / "j.db")
    assert out == "0\n", err


@pytest.mark.slow
def test_an_interrupted_read_does_not_keep_the_store_locked(children, tmp_path):
    """Ctrl-C in drain() or stats(), and somebody keeps the traceback: other threads go on logging."""
    code = """
    import logging, os, random, signal, sys, threading, time
    from lastwords import DurableHandler
    handler = DurableHandler(None, sys.argv[1]); log = logging.Logger("t"); log.addHandler(handler)
    log.error("x")
    def interrupt(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, interrupt)
    kept, hits, end = [], 0, time.monotonic() + 40
    while hits < 1_000 and time.monotonic() < end:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 2e-4))
            while True:
                handler.stats()
        except KeyboardInterrupt as error:
            kept.append(error)
            del kept[:-50]
            hits += 1
        if handler._engine.store.lock.is_mine():
            print("locked after", hits); break
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    done = []
    thread = threading.Thread(target=lambda: done.append(log.error("y")), daemon=True)
    thread.start(); thread.join(10)
    print(hits == 1_000, len(done), flush=True)
    os._exit(0)
    """
    out, err, _ = children.run(code, tmp_path / "j.db")
    assert out == "True 1\n", err
