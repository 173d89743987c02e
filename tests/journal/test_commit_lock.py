"""The commit lock: one at a time, in turns, and nobody waits for ever for a process that is stopped."""

import contextlib
import fcntl
import os
import signal
import subprocess
import time

import pytest

from conftest import stop
from lastwords.errors import JournalBusy
from lastwords.journal import commit_lock, wal
from lastwords.journal.commit_lock import CommitLock
from lastwords.journal.store import Store

WORKER = """
import os, sys, time
from lastwords.journal.commit_lock import CommitLock
lock = CommitLock(sys.argv[1], 20.0)  # a busy machine stops processes for a while
print("ready", flush=True); sys.stdin.readline()
end = time.monotonic() + float(sys.argv[2]); passed = []
with open(sys.argv[3] + ".turns", "ab", buffering=0) as turns:
    while time.monotonic() < end:
        before = os.fstat(turns.fileno()).st_size; lock.hold(); passed.append(os.fstat(turns.fileno()).st_size - before)
        with open(sys.argv[3], "r+") as f:  # what it is for
            assert f.read() == ""; f.write("x"); f.flush()
            time.sleep(0.0003); f.seek(0); f.truncate()
        turns.write(b"x"); lock.drop()
passed.sort()
print(len(passed), passed[len(passed) * 95 // 100], flush=True)
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "inside").touch()
    (tmp_path / "j.db").touch()
    return str(tmp_path / "j.db")


def start(children, path, seconds):
    child = children.start(WORKER, path, seconds, os.path.dirname(path) + "/inside", stdin=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    return child


def go(child):
    child.stdin.write(b"\n")
    child.stdin.flush()


@pytest.mark.slow
def test_four_processes_take_turns(children, path):
    """None is inside with another, and while one waits the others have a turn each: a few commits, not hundreds."""
    four = [start(children, path, 2) for _ in range(4)]
    for child in four:
        go(child)
    found = []
    for child in four:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err.decode()
        found.append(tuple(map(int, out.split())))
    assert all(count for count, _ in found), found
    assert max(passed for _, passed in found) <= 60, found


@pytest.mark.slow
def test_one_that_is_stopped_in_the_turnstile_is_passed_by(children, path):
    """It holds the byte and waits for the lock; whoever comes behind it gets in without."""
    holder = CommitLock(path, 1.0)
    holder.hold()
    waiting = start(children, path, 0.1)
    go(waiting)
    fd = os.open(path + commit_lock.SUFFIX, os.O_RDWR)
    try:
        deadline = time.monotonic() + 30
        while True:  # the byte is taken
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, commit_lock.TURNSTILE)
            except OSError:
                break
            fcntl.lockf(fd, fcntl.LOCK_UN, 1, commit_lock.TURNSTILE)
            assert time.monotonic() < deadline
            time.sleep(0.005)
        stop(waiting.pid)
        holder.drop()
        behind = CommitLock(path, 1.0)
        behind._crowded = 5
        began = time.monotonic()
        behind.hold()
        assert time.monotonic() - began > 0.3
        assert behind.owned
        behind.close()
    finally:
        waiting.send_signal(signal.SIGCONT)
        os.close(fd)
    assert waiting.wait(20) == 0
    holder.close()


def test_the_turnstile_is_left_alone_when_nobody_else_comes(path, monkeypatch):
    """After CROWDED turns without waiting a commit costs two calls again."""
    monkeypatch.setattr(commit_lock, "TURN_SECONDS", 0.0)
    lock = CommitLock(path, 1.0)
    lock._crowded = 3
    calls = []
    real = fcntl.lockf
    monkeypatch.setattr(fcntl, "lockf", lambda *a: (calls.append(a), real(*a))[1])
    for _ in range(10):
        lock.hold()
        lock.drop()
        time.sleep(0.0001)
    assert 6 <= len(calls) <= 8
    lock.close()


HOLDER = """
import fcntl, os, sys
from lastwords.journal.commit_lock import CHECKPOINT, TURNSTILE, CommitLock
lock = CommitLock(sys.argv[1], 1.0)
lock.hold()
if sys.argv[2] == "checkpoint":
    lock.mark_checkpointing(running=True)
if sys.argv[2] == "turnstile":
    lock.drop()
    assert lock._try_byte(TURNSTILE)
print("ready", flush=True); sys.stdin.readline()
"""


@pytest.fixture
def holder(children, path):
    def start(what):
        child = children.start(HOLDER, path, what, stdin=subprocess.PIPE)
        assert child.stdout.readline() == b"ready\n"
        return child

    return start


def test_a_lock_that_was_passed_by_is_taken_as_soon_as_it_is_free(holder, path):
    """Who is passed by may come back: what goes on without the lock then would race with it."""
    child, lock = holder("commit"), CommitLock(path, 0.2)
    lock.hold()
    assert lock.held
    assert not lock.owned, "passed by"
    lock.drop()
    lock.hold()
    assert not lock.owned, "still, and at once"
    lock.drop()
    child.kill()
    child.wait(10)
    for _ in range(3):
        lock.hold()
        assert lock.owned
        lock.drop()


def test_nothing_checkpoints_without_owning_the_lock(tmp_path, monkeypatch):
    """On SQLite with the WAL-reset bug; elsewhere a stopped process is no reason to let the WAL grow."""
    with contextlib.closing(Store(str(tmp_path / "j.db"))) as store:
        with store.lock, store.writing() as conn:
            conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('a', 'b')")
        real = CommitLock.hold

        def passed_by(self):
            real(self)
            self.owned = False

        monkeypatch.setattr(wal, "wal_reset_is_safe", lambda: False)
        with monkeypatch.context() as patched:
            patched.setattr(CommitLock, "hold", passed_by)
            assert not wal.checkpoint(store, shrink=True)
            patched.setattr(wal, "wal_reset_is_safe", lambda: True)
            assert wal.checkpoint(store, shrink=True)
        assert wal.checkpoint(store, shrink=True)


@pytest.mark.slow
def test_a_process_stopped_in_the_turnstile_delays_its_siblings_once(holder, path):
    """Not each of their commits, for as long as it is stopped."""
    child, lock = holder("turnstile"), CommitLock(path, 1.0)
    lock._crowded = commit_lock.CROWDED
    waits = []
    for _ in range(8):
        began = time.monotonic()
        lock.hold()
        waits.append(time.monotonic() - began)
        assert lock.owned
        lock.drop()
        time.sleep(0.005)
    assert waits[0] > 0.4, "the control: it was in the way"
    assert sorted(waits[1:])[3] < waits[0] / 2, waits
    child.kill()


@pytest.mark.parametrize("killed", [True, False])
def test_a_killed_checkpoint_leaves_no_mark(holder, path, killed):
    """Else a stopped commit would be taken for a stopped checkpoint, which is not passed by."""
    child = holder("checkpoint")
    if killed:
        child.kill()
        child.wait(10)
        holder("commit")
    lock = CommitLock(path, 0.2)
    if killed:
        lock.hold()
        assert not lock.owned
    else:
        with pytest.raises(JournalBusy):
            lock.hold()


def test_a_checkpoint_of_this_process_is_not_passed_by_either(holder, path):
    """Its POSIX lock does not keep the process itself out."""
    first, second = CommitLock(path, 0.2), CommitLock(path, 0.2)
    first.hold()
    first.mark_checkpointing(running=True)
    with pytest.raises(JournalBusy):
        second.hold()
    first.mark_checkpointing(running=False)
    second.hold()
    assert not second.owned
    first.drop()


def test_a_lock_file_that_was_removed_is_opened_anew(path):
    """By itself, while the journal stays: else those who open it now would have another lock."""
    lock = CommitLock(path, 0.2)
    lock.hold()
    os.unlink(path + ".commit")
    lock.close_if_replaced()
    assert lock.is_open, "not while it is held"
    lock.drop()
    lock.close_if_replaced()
    assert not lock.is_open
    lock.hold()
    assert os.path.exists(path + ".commit")
    lock.drop()
    lock.close_if_replaced()
    assert lock.is_open, "the control: nothing was replaced"
