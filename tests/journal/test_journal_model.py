"""The journal against a model: append, settle, bury, requeue, settle ahead, prune, shed, crash, reopen."""

import logging
import os
import shutil
import sqlite3
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lastwords.journal import epochs, tidy, wal
from lastwords.journal.line import Burial, Fenced, Line
from lastwords.journal.store import Store
from lastwords.record import codec


def row(text):
    return codec.encode(logging.LogRecord("x", 20, "/x.py", 1, text, (), None))


class JournalMachine(RuleBasedStateMachine):
    @initialize()
    def open(self):
        self.folder = tempfile.mkdtemp()
        self.path = os.path.join(self.folder, "j.db")
        self.store = Store(self.path)
        self.journal = Line(self.store)
        self.pending = []  # ids in order
        self.ahead = set()  # ids settled out of order
        self.dead = []
        self.delivered = 0
        self.dropped = 0
        self.seen_ids = {}  # id: text
        self.seen_seqs = set()
        self.count = 0

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.folder)

    def stored(self, limit=1000):
        cursor = self.journal.cursor()
        return cursor, self.journal.read(cursor.settled, limit)

    @rule(count=st.integers(1, 5))
    def append(self, count):
        from lastwords.append.committer import Committer

        committer = Committer(
            self.store,
            sync_level=40,
            memory_limit=1000,
            on_dirty=lambda: None,
            on_synced=lambda rows: None,
            on_trouble=lambda: None,
        )
        for _ in range(count):
            self.count += 1
            committer.append(row(f"m{self.count}"))
        _, rows = self.stored()
        new = rows[-count:]
        for index, stored in enumerate(new):
            text = f"m{self.count - count + 1 + index}"
            assert self.journal.decode(stored).message == text
            assert stored.id not in self.seen_ids  # no id is ever used for two records
            assert stored.seq not in self.seen_seqs  # no seq either
            self.seen_ids[stored.id] = text
            self.seen_seqs.add(stored.seq)
            self.pending.append(stored.id)

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def settle(self, data):
        cursor, rows = self.stored()
        count = data.draw(st.integers(1, len(rows)))
        self.journal.settle(cursor, rows[count - 1].seq, count)
        del self.pending[:count]
        self.delivered += count

    @precondition(lambda self: self.pending)
    @rule()
    def bury_head(self):
        cursor, rows = self.stored()
        head = rows[0]
        self.journal.mark(cursor, upto=head.seq, delivered=0, buried=[Burial(head.seq, "bad", "tb", 3, 1.0)])
        self.dead.append(self.pending.pop(0))

    @precondition(lambda self: len(self.pending) > 1)
    @rule(data=st.data())
    def settle_ahead(self, data):
        cursor, rows = self.stored()
        index = data.draw(st.integers(1, len(rows) - 1))
        self.journal.mark(cursor, upto=cursor.settled, delivered=1, ahead=[rows[index].seq])
        self.pending.pop(index)
        self.delivered += 1

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def requeue(self, data):
        wanted = data.draw(st.lists(st.sampled_from(self.dead), min_size=1, unique=True))
        assert self.journal.retry_dead(wanted) == len(wanted)
        for id_ in wanted:
            self.dead.remove(id_)
            self.pending.append(id_)
        self.seen_seqs |= {r.seq for r in self.stored()[1]}

    @precondition(lambda self: self.dead)
    @rule()
    def drop_dead(self):
        assert self.journal.drop_dead(self.dead[:1]) == 1
        self.dead.pop(0)

    @rule()
    def prune(self):
        while tidy.prune_slice(self.store, 0.0, 3):
            pass

    @rule()
    def checkpoint(self):
        assert wal.checkpoint(self.store, shrink=True)

    @rule()
    def reopen(self):
        self.store.close()
        self.store = Store(self.path)
        self.journal = Line(self.store)

    @rule()
    def crash(self):
        """The process dies: what it leaves are the files as they are, its locks are gone; another boot."""
        copy = os.path.join(self.folder, "crashed")
        os.mkdir(copy)
        for name in os.listdir(self.folder):
            if name.startswith("j.db") and not name.endswith("-shm"):
                shutil.copy(os.path.join(self.folder, name), copy)
        self.store.close()
        for name in os.listdir(self.folder):
            if name.startswith("j.db"):
                os.unlink(os.path.join(self.folder, name))
        for name in os.listdir(copy):
            shutil.move(os.path.join(copy, name), self.folder)
        os.rmdir(copy)
        self.store = Store(self.path)
        self.journal = Line(self.store)

    @precondition(lambda self: self.pending)
    @rule()
    def stale_holder(self):
        cursor, rows = self.stored()
        self.journal.raise_fence()
        for mark in (
            lambda: self.journal.settle(cursor, rows[0].seq, 1),
            lambda: self.journal.mark(cursor, upto=rows[0].seq, delivered=1),
            lambda: self.journal.fail(cursor, "x", counts=True),
        ):
            try:
                mark()
            except Fenced:
                continue
            raise AssertionError("a fenced mark went through")

    @invariant()
    def agrees_with_the_model(self):
        if not hasattr(self, "journal"):
            return
        _, rows = self.stored()
        assert [r.id for r in rows] == self.pending
        assert [self.journal.decode(r).message for r in rows] == [self.seen_ids[i] for i in self.pending]
        stats = self.journal.stats()
        assert stats.pending == len(self.pending)
        assert stats.delivered == self.delivered
        assert stats.dead == len(self.dead)
        assert sorted(letter.id for letter in self.journal.dead_letters()) == sorted(self.dead)
        assert self.journal.has_pending() == bool(self.pending)


TestJournalMachine = pytest.mark.slow(JournalMachine.TestCase)
TestJournalMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_seq_is_never_used_twice(tmp_path):
    """Prune leaves the newest row; deleting every settled row instead makes seqs start again (the control)."""
    store = Store(str(tmp_path / "j.db"))
    journal = Line(store)

    def append():
        with store.lock, store.writing() as conn:
            return conn.execute(
                "INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", row("x")
            ).lastrowid

    for _ in range(3):
        last = append()
    journal.settle(journal.cursor(), last, 3)
    assert tidy.prune_slice(store, 0.0) == 2
    assert append() == 4

    with store.lock, store.writing() as conn:  # the naive version
        conn.execute("DELETE FROM entries")
    assert append() == 1


def test_an_epoch_begins_whenever_a_file_is_opened_for_the_first_time(tmp_path, monkeypatch):
    """A copy, a backup restored in place and another boot give new ids to the seqs they may repeat.

    One who has had it open goes on, and all others read the new epoch: an entry has one id, whoever reads it.
    """
    from lastwords.journal import files

    def first_new_id(path):
        store = Store(str(path))
        with store.lock, store.writing() as conn:
            seq = conn.execute(
                "INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", row("x")
            ).lastrowid
        ids = [r.id for r in Line(store).read(0, 100)]
        store.close()
        return seq, ids

    def epoch(id_):
        return id_.rpartition("-")[0]

    path = tmp_path / "j.db"
    _, one = first_new_id(path)
    _, two = first_new_id(path)
    assert two[0] == one[0]
    assert epoch(two[1]) != epoch(one[0])
    shutil.copy(path, tmp_path / "copy.db")
    _, three = first_new_id(path)
    shutil.copyfile(tmp_path / "copy.db", path)  # the same inode
    seq, restored = first_new_id(path)
    assert restored[:2] == three[:2] == two
    assert (seq, len(restored)) == (3, 3)
    assert restored[2] != three[2]
    open_ = Store(str(path))
    journal = Line(open_)
    epochs = [epoch(row.id) for row in journal.read(0, 100)]
    _, four = first_new_id(path)
    assert [row.id for row in journal.read(0, 100)] == four
    assert epoch(four[3]) not in epochs
    open_.close()
    monkeypatch.setattr(files, "_boot_id", "another boot")
    with open_.lock:
        open_.connection(create=False)
    assert epoch(Line(open_).read(0, 100)[-1].id) == epoch(four[3])
    assert len(open_.epochs) == 5
    open_.close()


def test_epochs_without_entries_are_forgotten(tmp_path, monkeypatch):
    """A service that is started a thousand times does not carry a thousand of them."""
    monkeypatch.setattr(epochs, "KEPT", 3)
    path = str(tmp_path / "j.db")
    ids = []
    for _ in range(8):
        store = Store(path)
        with store.lock, store.writing() as conn:
            conn.execute("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", row("x"))
            conn.execute("DELETE FROM entries WHERE seq < (SELECT max(seq) FROM entries) - 1")
        ids.append(Line(store).read(0, 100)[-1].id)
        store.close()
    assert len(set(ids)) == 8
    assert len(store.epochs) < 6
    with Line.open(path) as journal:
        assert [row.id for row in journal.read(0, 100)] == ids[-2:]


@pytest.mark.slow
def test_processes_that_create_one_journal_at_once_all_succeed(children, tmp_path):
    """Self-migration under a race: six processes, forty times; one schema, an epoch each at most, every record there."""
    code = """
    import logging, os, sys, traceback
    import sqlite_utils, tenacity, lastwords.migrations.migrations  # imported already, so that all run at once
    from lastwords import DurableHandler
    from lastwords.journal.line import Line
    failed = 0
    for attempt in range(40):
        path = f"{sys.argv[1]}{attempt}"
        read, write = os.pipe()
        pids = []
        for i in range(6):
            pid = os.fork()
            if pid == 0:
                try:
                    os.close(write); os.read(read, 1)
                    log = logging.Logger("x"); log.addHandler(DurableHandler(None, path)); log.error("m%d", i)
                except BaseException:
                    traceback.print_exc(); os._exit(1)
                os._exit(0)
            pids.append(pid)
        os.close(read); os.close(write)
        failed += sum(os.waitpid(pid, 0)[1] != 0 for pid in pids)
        with Line.open(path) as journal:
            assert journal.stats().pending == 6, journal.stats()
            assert 1 <= len({first for first, _ in journal.store.epochs}) <= 7  # ours is one, too
    print(failed)
    """
    out, err, _ = children.run(code, tmp_path / "j.db")
    assert out == "0\n", err


def test_the_view_is_readable_with_plain_sqlite3(tmp_path):
    """id, time, level name, logger, message and state, without this package."""
    store = Store(str(tmp_path / "j.db"))
    with store.lock, store.writing() as conn:
        conn.execute("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", row("hello"))
    ids = [r.id for r in Line(store).read(0, 10)]
    store.close()
    with sqlite3.connect(tmp_path / "j.db") as conn:
        conn.row_factory = sqlite3.Row
        (found,) = conn.execute("SELECT * FROM records").fetchall()
    assert dict(found) | {"time_utc": ""} == {
        "seq": 1, "id": ids[0], "time_utc": "", "level": "INFO", "logger": "x", "message": "hello", "state": "pending",
        "exception_type": None, "exception_text": None, "exception_traceback": None,
    }  # fmt: skip
