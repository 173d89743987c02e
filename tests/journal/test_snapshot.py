"""A process that writes alone keeps its read lock: cheaper commits, and nobody else is the worse for it."""

import contextlib
import logging
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest

from lastwords import DurableHandler
from lastwords.journal import snapshot, tidy, wal
from lastwords.journal.line import Fenced
from lastwords.journal.store import Store


@pytest.fixture
def alone(tmp_path):
    """A handler whose connection holds a snapshot, and its logger."""
    handler = DurableHandler(None, tmp_path / "j.db", sync_interval=30)
    log = logging.Logger("alone")
    log.addHandler(handler)
    for i in range(snapshot.TAKE_AFTER):
        log.info("first %d", i)
    hold(log, handler)  # the keeper, which looks once at the beginning, lets it go
    yield log, handler, tmp_path / "j.db"
    handler.close()


def held(handler):
    return handler._engine.store.snapshot.is_held


def hold(log, handler):
    """Log until it is held."""
    for i in range(1_000):
        if held(handler):
            break
        log.info("until it is held %d", i)
    assert held(handler)


@contextlib.contextmanager
def holding(log, handler):
    """Inside, nobody but the caller lets it go."""
    for _ in range(100):
        hold(log, handler)
        with handler._engine.store.lock:
            if held(handler):  # else the keeper was faster
                yield
                return
    pytest.fail("it is never held")


def messages(path):
    with sqlite3.connect(path) as conn:
        return [row[0] for row in conn.execute("SELECT json_extract(payload, '$.message') FROM entries ORDER BY seq")]


def other_commit(path, text="by another process"):
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute(
        "INSERT INTO entries (created, level, payload, checksum) SELECT created, level, json_set(payload, '$.message', ?),"
        " checksum FROM entries LIMIT 1",
        (text,),
    )
    return conn


def test_others_read_each_commit_at_once(alone):
    """The lock is a reader's: it shuts nobody out."""
    log, _, path = alone
    for i in range(20):
        log.info("seen %d", i)
        assert messages(path)[-1] == f"seen {i}"


def test_another_writer_sends_the_holder_back_to_the_commit_lock(alone):
    """Nothing is lost or out of order, and it does not try again with the next record."""
    log, handler, path = alone
    other_commit(path).close()
    log.info("after it")
    assert not held(handler)
    assert messages(path)[-2:] == ["by another process", "after it"]
    for i in range(100):
        log.info("more %d", i)
    assert not held(handler)
    assert handler._engine.committer.trouble is None


def test_a_reader_of_the_same_process_sees_what_others_wrote(alone):
    """stats(), the courier, the keeper: all look anew."""
    log, handler, path = alone
    before = handler.stats().pending
    other_commit(path).close()
    assert handler.stats().pending == before + 1
    assert not held(handler)


def test_a_writer_that_holds_the_lock_makes_it_queue_not_fail(alone, poll):
    """SQLITE_BUSY is no trouble: the record waits for the other's commit like any other."""
    import threading

    log, handler, path = alone
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    done = []
    thread = threading.Thread(target=lambda: (log.info("waited"), done.append(1)))
    thread.start()
    assert not poll(lambda: done, 0.3)
    other.execute("COMMIT")
    thread.join(10)
    assert done
    assert handler.stats().buffered == 0
    assert messages(path)[-1] == "waited"


def test_reads_marks_and_prunes_do_not_let_it_go(alone):
    """They come in between all the time, and it costs callers six commits each time."""
    log, handler, path = alone
    line = handler._engine.journal
    cursor = line.cursor()
    settled, kept = [], []
    for step in (
        lambda: settled.extend(line.read(0, 3)),
        lambda: settled.append(line.settle(cursor, 3, 3)),
        lambda: settled.append(tidy.prune_slice(line.store, 0.0, 2)),
    ):
        with holding(log, handler):
            step()
            kept.append(held(handler))
        log.info("goes on")
    assert kept == [True, True, True]
    assert [getattr(one, "seq", one) for one in settled] == [1, 2, 3, cursor._replace(settled=3), 2]
    assert messages(path)[-1] == "goes on"
    assert [row.seq for row in line.read(0, 1)] == [3]


def test_marks_and_prunes_beside_another_writer_are_made_the_long_way(alone):
    """They fail at once in the snapshot, with nothing written, and find what the other process did."""
    log, handler, path = alone
    line = handler._engine.journal
    cursor = line.cursor()
    hold(log, handler)
    other_commit(path).close()
    cursor = line.settle(cursor, 3, 3)
    assert not held(handler)
    handler._engine.store.snapshot._run = 0  # as after REST commits
    hold(log, handler)
    other_commit(path).close()
    assert tidy.prune_slice(line.store, 0.0, 2) == 2
    assert not held(handler)
    assert handler.stats().delivered == 3
    handler._engine.store.snapshot._run = 0
    hold(log, handler)
    other = other_commit(path)
    other.execute("UPDATE cursor SET fence = fence + 1")
    other.close()
    with pytest.raises(Fenced):
        line.settle(cursor, 4, 1)


def test_what_another_process_logged_is_delivered_though_a_read_did_not_see_it(alone):
    """A read in the snapshot may end before it; the question whether anything is left does not."""
    log, handler, path = alone
    line = handler._engine.journal
    with holding(log, handler):
        newest = line.read(0, 1_000)[-1].seq
        other_commit(path).close()
        assert line.read(newest, 10) == []
        assert line.has_pending()
        assert [row.seq for row in line.read(newest, 10)] == [newest + 1]


def test_it_is_let_go_when_no_more_comes(tmp_path, poll):
    """By the keeper's round, so that others can empty the WAL."""
    handler = DurableHandler(None, tmp_path / "j.db", sync_interval=0.2)
    log = logging.Logger("idle")
    log.addHandler(handler)
    for i in range(10):
        log.info("m%d", i)
    other = Store(str(tmp_path / "j.db"))
    assert poll(lambda: not held(handler), 30)
    assert wal.checkpoint(other, shrink=True) is True
    handler.close()
    other.close()


def test_a_synced_commit_takes_no_snapshot(tmp_path):
    """Nothing would make the keeper look, so nobody would let it go."""
    handler = DurableHandler(None, tmp_path / "j.db", sync_level="NOTSET")
    log = logging.Logger("full")
    log.addHandler(handler)
    for i in range(20):
        log.info("m%d", i)
    assert not held(handler)
    handler.close()


def test_nobody_resets_the_wal_under_a_snapshot(alone):
    """The WAL-reset bug needs a reset while the holder commits without the commit lock: a reader's lock prevents it."""
    log, handler, path = alone

    def salts():
        with open(f"{path}-wal", "rb") as f:
            return f.read(32)[16:24]

    handler._engine.keeper.stop()  # it may let go between any two lines
    assert handler._engine.keeper.join(60)
    hold(log, handler)
    before = salts()
    other = sqlite3.connect(path, isolation_level=None, timeout=0)
    for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
        other.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        assert salts() == before
        log.info("after %s", mode)  # moves the snapshot along; the file was not begun anew
        assert salts() == before
        assert held(handler)
    handler.stats()  # lets go
    other.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    log.info("the control: now it is begun anew")
    assert salts() != before


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_it_saves_most_system_calls(tmp_path):
    """Of a commit alone, beside the 3 that ask whose the descriptors are: 2 fcntl instead of 6, no flock."""
    code = (
        "import sys, logging\nfrom lastwords import DurableHandler; from lastwords.journal import snapshot\n"
        "snapshot.TAKE_AFTER = int(sys.argv[2])\n"
        "log = logging.Logger('s'); log.addHandler(DurableHandler(None, sys.argv[1], sync_interval=30))\n"
        "for i in range(400): log.info('m%d', i)\nimport os; os._exit(0)"
    )
    counts = {}
    for name, take_after in (("held", 4), ("never", 10**9)):
        command = ["strace", "-f", "-c", "-e", "trace=fcntl,flock", sys.executable, "-c", code]
        done = subprocess.run([*command, str(tmp_path / f"{name}.db"), str(take_after)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        words = [line.split() for line in done.stderr.splitlines()]
        counts[name] = {w[-1]: int(w[3]) for w in words if w and w[-1] in {"fcntl", "flock"}}
    assert counts["held"]["fcntl"] < 400 * (3 + 2) + 800
    assert counts["never"]["fcntl"] > 400 * (3 + 5)
    assert counts["held"].get("flock", 0) < 60
    assert counts["never"]["flock"] >= 800


@pytest.mark.slow
def test_two_processes_at_full_speed(children, tmp_path):
    """Each loses nothing, keeps its order, and neither starves."""
    code = """
    import logging, sys, time
    from lastwords import DurableHandler; from lastwords.journal import snapshot
    snapshot.REST = 50  # so that they try to be alone again and again
    log = logging.Logger("p"); h = DurableHandler(None, sys.argv[1], sync_interval=0.05); log.addHandler(h)
    print("ready", flush=True); sys.stdin.readline()
    worst = 0
    for i in range(4000):
        began = time.monotonic(); log.info("%s %d", sys.argv[2], i); worst = max(worst, time.monotonic() - began)
    assert h.stats().buffered == 0
    h.close(); print("worst", worst, flush=True)
    """
    import subprocess as sp

    path = tmp_path / "j.db"
    both = [children.start(code, path, name, stdin=sp.PIPE) for name in ("a", "b")]
    for child in both:
        assert child.stdout.readline() == b"ready\n"
    for child in both:
        child.stdin.write(b"\n")
        child.stdin.flush()
    for child in both:
        out, err = child.communicate(timeout=100)
        assert child.returncode == 0, err.decode()
        assert not err, err.decode()
    found = [text.split() for text in messages(path)]
    for name in ("a", "b"):
        assert [int(n) for who, n in found if who == name] == list(range(4000))


def test_a_fork_while_it_is_held(alone):
    """Parent and child go on, each with a connection of its own."""
    log, handler, path = alone
    pid = os.fork()
    if pid == 0:
        log.info("child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    log.info("parent")
    assert messages(path)[-2:] == ["child", "parent"]
