"""Append: shared commits, nested calls, interrupts, and the memory buffer."""

import gc
import json
import logging
import signal
import sqlite3
import sys
import threading
import time

import pytest

from lastwords import DurableHandler, Journal
from lastwords.append import committer
from lastwords.append.memory_buffer import MemoryBuffer
from lastwords.journal.inserts import MAX_ROWS
from lastwords.journal.store import Store


@pytest.fixture
def log(tmp_path):
    handler = DurableHandler(None, tmp_path / "j.db", sync_interval=0.05)
    logger = logging.Logger("t", 1)
    logger.addHandler(handler)
    logger.durable = handler
    yield logger
    handler.close()


def messages(path):
    with Journal(path) as journal:
        return [entry.message for entry in journal.entries()]


def test_threads_share_commits_and_keep_their_order(log, tmp_path):
    """16 threads, every record synced: each thread's records in order, far fewer commits than records."""
    log.durable._engine.committer._sync_level = 0
    statements = []
    log.durable._engine.store._conn.set_trace_callback(lambda sql: statements.append(sql[:6]))

    def work(t):
        for i in range(50):
            log.info("%d %d", t, i)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    seen = messages(tmp_path / "j.db")
    assert len(seen) == 800
    for t in range(16):
        assert [m for m in seen if m.startswith(f"{t} ")] == [f"{t} {i}" for i in range(50)]
    assert statements.count("INSERT") < 300, "some 80; 800 if nobody shares"


def test_a_thread_that_comes_back_at_once_does_not_starve_the_others(log):
    """All 16 get on at the same pace: the first is not done before the last has begun."""
    log.durable._engine.committer._sync_level = 0
    order, all_there = [], threading.Barrier(16)

    def work(t):
        all_there.wait(60)
        for i in range(60):
            log.info("%d %d", t, i)
            order.append(t)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    first_done = min(len(order) - 1 - order[::-1].index(t) for t in range(16))
    last_begun = max(order.index(t) for t in range(16))
    assert last_begun < first_done


def test_a_signal_handler_that_logs_while_its_thread_waits_to_lead(log, tmp_path):
    """The thread has said that it leads but has not got the lock: it must not follow itself."""
    store = log.durable._engine.store
    inside, held = threading.Event(), threading.Event()

    def hold():
        with store.lock:
            held.set()
            inside.wait(10)

    def handler(*_):
        threading.Timer(0.2, inside.set).start()
        log.info("from the handler")

    before = signal.signal(signal.SIGALRM, handler)
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    began = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        log.info("from the thread")
    finally:
        signal.signal(signal.SIGALRM, before)
        thread.join(10)
    assert time.monotonic() - began < 9
    assert sorted(messages(tmp_path / "j.db")) == ["from the handler", "from the thread"]


def test_a_leader_that_is_gone_is_not_followed_for_ever(log, tmp_path, monkeypatch):
    """Whatever left the mark behind: after FOLLOW_LOOKS the follower leads."""
    monkeypatch.setattr(committer, "FOLLOW_LOOKS", 5)
    log.durable._engine.committer._leader = 12345
    log.info("one")
    log.info("two")
    assert messages(tmp_path / "j.db") == ["one", "two"]


@pytest.mark.slow
def test_a_signal_handler_that_logs_inside_append_neither_deadlocks_nor_loses(log, tmp_path):
    """A timer logs while the main thread logs; every returned call is in the journal when it returns."""
    count = [0]
    path = tmp_path / "j.db"
    probe = sqlite3.connect(path)
    missing = []

    def handler(*_):
        count[0] += 1
        log.info("signal %d", count[0])
        newest = probe.execute("SELECT payload FROM entries ORDER BY seq DESC LIMIT 3").fetchall()
        if not any(f'"signal {count[0]}"' in payload for (payload,) in newest):
            missing.append(count[0])
        signal.setitimer(signal.ITIMER_REAL, 0.001)  # only now: handlers do not nest in themselves

    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    try:
        end = time.monotonic() + 2
        i = 0
        while time.monotonic() < end:
            log.info("main %d", i)
            i += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    seen = messages(path)
    assert count[0] > 20
    assert [m for m in seen if m.startswith("main")] == [f"main {n}" for n in range(i)]
    assert len({m for m in seen if m.startswith("signal")}) == count[0]
    assert missing == []


@pytest.mark.slow
def test_a_finalizer_that_logs_inside_append_neither_deadlocks_nor_loses(log, tmp_path, poll):
    """Garbage collection may run a __del__ anywhere, also between two statements of the leader."""
    count = [0]

    class Last:
        def __init__(self):
            self.me = self

        def __del__(self):
            count[0] += 1
            log.info("del %d", count[0])
            returned[0] += 1

    returned = [0]
    threshold = gc.get_threshold()
    gc.set_threshold(20)
    try:
        for i in range(500):
            Last()
            log.info("main %d", i)
    finally:
        gc.set_threshold(*threshold)
    # While another thread collects, gc.collect() does nothing; and what that one found may still be logging.
    assert poll(lambda: gc.collect() >= 0 and returned[0] == 500), returned
    seen = messages(tmp_path / "j.db")
    assert count[0] == 500
    assert len([m for m in seen if m.startswith("del")]) == 500
    assert [m for m in seen if m.startswith("main")] == [f"main {n}" for n in range(500)]


def test_what_a_nested_call_cannot_commit_its_outer_frame_does(log, tmp_path, monkeypatch):
    """Whichever way the outer frame took, and though no other record follows."""
    engine = log.durable._engine
    real = type(engine.store).set_synchronous

    def no_full(self, conn, *, full):
        if full and self is engine.store:
            raise sqlite3.OperationalError("not now")
        real(self, conn, full=full)

    def nested():
        log.info("nested")

    monkeypatch.setattr(type(engine.store), "set_synchronous", no_full)
    monkeypatch.setattr(engine.committer, "_on_dirty", nested)  # runs amid the outer frame's commit
    for expected in (2, 4, 6, 8, 10, 12):  # the later ones with a snapshot
        engine.committer.dirty = False
        log.info("outer")
        assert len(messages(tmp_path / "j.db")) == expected


INTERRUPTS = """
import json, logging, signal, sys, time
from lastwords import DurableHandler

class Interrupted(Exception): pass
def handler(*_): raise Interrupted

log = logging.Logger("t", 1); durable = DurableHandler(None, sys.argv[1]); log.addHandler(durable)
signal.signal(signal.SIGALRM, handler)
returned, interrupts, i, end = [], 0, 0, time.monotonic() + 3
try:
    while time.monotonic() < end:
        i += 1
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.00002 + (i % 50) * 0.000003)
            log.info("m%d", i)
            returned.append(f"m{i}")
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            interrupts += 1
except Interrupted:
    pass
signal.signal(signal.SIGALRM, signal.SIG_IGN)
log.info("after")
print(json.dumps([interrupts, returned, durable._engine.store._conn.in_transaction]))
"""


@pytest.mark.slow
def test_a_keyboard_interrupt_leaves_no_transaction_and_no_duplicate(children, tmp_path):
    """An exception out of a signal handler, thousands of times, at any bytecode: returned calls are there once.

    In a process of its own: the same exceptions leave logging's own module lock held (CPython's `_acquireLock(); try:`).
    """
    out, _, _ = children.run(INTERRUPTS, tmp_path / "j.db")
    interrupts, returned, in_transaction = json.loads(out)
    assert interrupts > 100
    assert not in_transaction
    seen = messages(tmp_path / "j.db")
    assert set(returned) <= set(seen)
    assert "after" in seen
    assert len(seen) == len(set(seen))


def test_sync_level_decides_which_commit_is_full(log, monkeypatch):
    """FULL for ERROR and above, NORMAL below; set explicitly each time it changes."""
    store = log.durable._engine.store
    conn = store.connection()

    def level():
        return conn.execute("PRAGMA synchronous").fetchone()[0]

    log.info("x")
    assert level() == 1
    log.error("x")
    assert level() == 2
    log.warning("x")
    assert level() == 1


def test_the_keeper_syncs_within_the_interval(log, poll):
    """What is below sync_level is synced by the keeper, without any caller."""
    committer = log.durable._engine.committer
    log.info("x")
    assert committer.dirty
    assert poll(lambda: not committer.dirty, 30)


@pytest.mark.slow
def test_a_locked_journal_delays_one_caller_once(tmp_path, capsys, poll):
    """Another program holds the write lock: one wait of the lock timeout, then memory; nothing lost afterwards."""
    handler = DurableHandler(None, tmp_path / "j.db")
    log = logging.Logger("t", 1)
    log.addHandler(handler)
    log.info("m0")
    other = sqlite3.connect(tmp_path / "j.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    durations = []
    for i in range(1, 40):
        began = time.monotonic()
        log.info("m%d", i)
        durations.append(time.monotonic() - began)
    assert handler.stats().buffered == 39
    assert sum(durations) < 15, "39 waits would take 78 s"
    other.execute("ROLLBACK")
    assert poll(lambda: handler.stats().buffered == 0, 30)
    log.info("m40")
    assert messages(tmp_path / "j.db") == [f"m{i}" for i in range(41)]
    err = capsys.readouterr().err
    assert err.count("takes no records") == 1
    assert err.count("takes records again") == 1
    handler.close()


def row(level, text="x" * 100):
    return (0.0, level, text, 0)


def test_the_memory_buffer_is_bounded_and_drops_the_least_severe_oldest():
    """Each drop is counted by level; what stays keeps its order."""
    buffer = MemoryBuffer(2500)
    rows = [row(10 if i % 2 else 40, f"{i:0100d}") for i in range(20)]
    for r in rows:
        buffer.add(r)
    assert buffer.bytes <= 2500
    assert buffer.count == 10
    assert buffer.take_dropped() == {10: 10}
    assert buffer.oldest(MAX_ROWS) == [r for r in rows if r[1] == 40]
    assert buffer.take_dropped() == {}


def test_removing_what_was_dropped_meanwhile_removes_nothing_else():
    """The keeper commits a batch while callers overflow the buffer."""
    buffer = MemoryBuffer(1000)
    first = [row(10, f"{i:0100d}") for i in range(4)]
    for r in first:
        buffer.add(r)
    taken = buffer.oldest(2)
    second = [row(10, f"{i:0100d}") for i in range(4, 8)]
    for r in second:
        buffer.add(r)
    buffer.remove(taken)
    assert buffer.oldest(10) == second


@pytest.mark.slow
def test_overflow_of_the_memory_buffer_is_counted_in_the_journal(tmp_path, capsys, poll):
    """What did not fit is counted by level when the journal takes records again."""
    handler = DurableHandler(None, tmp_path / "j.db", memory_limit=5_000)
    log = logging.Logger("t", 1)
    log.addHandler(handler)
    other = sqlite3.connect(tmp_path / "j.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for i in range(100):
        log.info("m%d", i)
    buffered = handler.stats().buffered
    assert 0 < buffered < 100
    assert handler.stats().dropped == 100 - buffered
    other.execute("ROLLBACK")
    assert poll(lambda: handler.stats().buffered == 0, 30)
    assert poll(
        lambda: Store(str(tmp_path / "j.db")).connection().execute("SELECT dropped FROM cursor").fetchone()[0], 30
    )
    assert handler.stats().dropped == 100 - buffered
    assert messages(tmp_path / "j.db") == [f"m{i}" for i in range(100 - buffered, 100)]
    handler.close()


@pytest.mark.slow
def test_a_reader_does_not_lead_for_everybody(log):
    """While 16 threads keep the line full, whoever lets go of the lock must get away from it."""
    log.durable._engine.committer._sync_level = 0
    stop = threading.Event()

    def work():
        while not stop.is_set():
            log.info("x")

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    reads, end = 0, threading.Timer(60, stop.set)  # as long as the load lasts, if it leads
    end.start()
    while reads < 100 and not stop.is_set():
        log.durable.stats()
        reads += 1
        time.sleep(0.01)
    assert reads == 100
    stop.set()
    end.cancel()
    for thread in threads:
        thread.join(30)


@pytest.mark.slow
def test_two_threads_that_retry_commit_each_record_once(tmp_path, monkeypatch):
    """The keeper retries, and so do flush, close and the exit."""
    monkeypatch.setattr(committer, "say", lambda text: None)
    handler = DurableHandler(None, tmp_path / "j.db", sync_interval=100)
    log = logging.Logger("t", 1)
    log.addHandler(handler)
    log.info("first")
    other = sqlite3.connect(tmp_path / "j.db", isolation_level=None)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for turn in range(3):
            other.execute("BEGIN IMMEDIATE")
            for i in range(2_000):
                log.info("%d %d", turn, i)
            other.execute("ROLLBACK")
            threads = [threading.Thread(target=handler.flush) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
    finally:
        sys.setswitchinterval(before)
    assert handler.drain(0) is False  # nobody delivers
    seen = messages(tmp_path / "j.db")
    assert len(seen) == len(set(seen)) == 6_001 - handler.stats().buffered
    handler.close()


def test_the_memory_buffer_may_grow_while_it_is_read():
    """A signal handler or a finalizer logs amid it."""
    buffer = MemoryBuffer(10**6)

    class Adds:
        def __init__(self, level):
            self.level = level

        def __del__(self):
            buffer.add(row(self.level))

    for level in (10, 20):
        for _ in range(500):
            buffer.add(row(level))

    class Deque(type(buffer._levels[10])):
        def __iter__(self):
            for i, item in enumerate(super().__iter__()):
                if i == 100 and not added:
                    added.append(1)
                    buffer.add(row(10))
                    buffer.add(row(30))
                yield item

    added = []
    buffer._levels[10] = Deque(buffer._levels[10])
    assert len(buffer.oldest(10_000)) in (1_001, 1_002), "the level that is new may come next time"
    assert added


@pytest.mark.slow
def test_drain_waits_for_what_is_only_in_memory(tmp_path, capsys, poll):
    """It was logged before; True would let a deploy script go on and lose it."""
    got = []
    handler = DurableHandler(lambda entries: got.extend(e.message for e in entries), tmp_path / "j.db")
    log = logging.Logger("t", 1)
    log.addHandler(handler)
    log.info("first")
    assert handler.drain(60)
    other = sqlite3.connect(tmp_path / "j.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    log.info("in memory")
    assert handler.stats().buffered == 1
    assert not handler.drain(0.3)
    other.execute("ROLLBACK")
    assert handler.drain(60)
    assert got == ["first", "in memory"]
    handler.close()


@pytest.mark.slow
def test_a_fork_amid_a_commit_leaves_the_rows_to_the_parent(children, tmp_path):
    """A signal handler forks while its thread commits for others: the child must not commit their rows as well."""
    code = """
    import logging, os, sys
    from lastwords import DurableHandler; from lastwords.record import codec
    from lastwords.journal.inserts import Inserts
    from lastwords.append.ticket import Ticket
    handler = DurableHandler(None, sys.argv[1]); log = logging.Logger("t"); log.addHandler(handler)
    log.error("first")
    committer, child = handler._engine.committer, []
    others = Ticket(codec.encode(logging.LogRecord("t", 20, "f.py", 1, "of another thread", (), None)))
    committer._arrived.append(others)
    real = Inserts._execute
    def forking(self, conn, rows, *, full):
        if not child:
            child.append(os.fork())
        real(self, conn, rows, full=full)
    Inserts._execute = forking
    log.error("own")
    assert others.done
    if child[0] == 0:
        log.error("of the child")
        os._exit(0)
    os.wait()
    os._exit(0)
    """
    children.run(code, tmp_path / "j.db")
    assert sorted(messages(tmp_path / "j.db")) == ["first", "of another thread", "of the child", "own"]
